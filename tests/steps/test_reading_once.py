"""How often each step opens the files that it is given, as the interpreter itself counts it."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from natix_lib.contracts import ARTIFACTS, STEPS
from tests.small_run import SETTINGS, Chain
from tests.street_sets import run_step

_counts: list[Counter[str]] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _counts and isinstance(arguments[1] or "r", str) and "w" not in str(arguments[1]):
        _counts[-1][str(arguments[0])] += 1


sys.addaudithook(_hook)  # cannot be taken back, so it counts only where asked


@contextmanager
def opens() -> Iterator[Counter[str]]:
    _counts.append(Counter())
    try:
        yield _counts[-1]
    finally:
        _counts.pop()


@pytest.mark.slow
@pytest.mark.parametrize("step", [name for name in SETTINGS if STEPS[name].inputs])
def test_a_step_opens_a_file_once_and_once_more_to_hash_or_copy_it(chain: Chain, tmp_path: Path, step: str) -> None:
    with opens() as counted:
        run_step(step, SETTINGS[step], tmp_path, chain.paths)
    for name in STEPS[step].inputs:
        place = Path(chain.paths[name])
        files = {path: counted[str(path)] for path in ([place] if place.is_file() else place.rglob("*"))}
        assert sum(files.values()) or (step, name) == ("export", "thresholds"), "the policy that does not ship"
        for path, times in files.items():
            hashed_first = place.is_dir() and path != place / ARTIFACTS[name].manifest
            copied = step == "export"  # into the bundle
            assert times <= 1 + hashed_first + copied, (path.name, times)
