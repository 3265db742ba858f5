"""The locks: every package of them with its hashes, and all that pyproject.toml asks for in them."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
TORCH = ROOT / "requirements-torch.lock"
PIN = re.compile(
    r"^([a-z0-9_.-]+)(?:\[[a-z0-9,]+\])?==(\S+)(?: ;[^\\]*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)


def pins(path: Path) -> dict[str, str]:
    """Package to version; every line of the file must belong to one, with its hashes."""
    text = path.read_text()
    rest = [line for line in PIN.sub("", text).splitlines() if line and not line.startswith("#")]
    assert rest == ([] if path == TORCH else [f"-r {TORCH.name}"])
    return {name.replace("_", "-"): version for name, version, _ in PIN.findall(text)} | (
        {} if path == TORCH else pins(TORCH)
    )


def asked(*extras: str) -> set[str]:
    names = [*PROJECT["project"]["dependencies"], *(name for extra in extras for name in EXTRAS[extra])]
    return {re.split(r"[<>=,\[]", name)[0].lower() for name in names if not name.startswith("natix[")}


def test_the_lock_of_run_time_has_all_extras_and_no_tools() -> None:
    locked = pins(ROOT / "requirements.lock")
    assert asked(*(extra for extra in EXTRAS if extra not in ("dev", "bench"))) <= locked.keys()
    assert not {"pytest", "mypy", "ruff"} & locked.keys()


def test_the_lock_of_development_adds_tools_and_changes_no_version() -> None:
    run_time, development = pins(ROOT / "requirements.lock"), pins(ROOT / "requirements-dev.lock")
    assert asked(*(extra for extra in EXTRAS if extra != "bench")) <= development.keys()
    assert run_time.items() <= development.items()


def test_no_lock_brings_cuda_and_torchs_own_needs_are_those_of_the_version_that_is_locked() -> None:
    assert not [name for name in pins(ROOT / "requirements-dev.lock") if name.startswith(("nvidia", "cuda", "triton"))]
    (described,) = PROJECT["tool"]["uv"]["dependency-metadata"]
    assert pins(TORCH) == {described["name"]: described["version"]}


@pytest.mark.parametrize("name", ["train", "pipelines", "vertex", "gcs", "s3", "nodes", "serve"])
def test_the_extra_all_has_every_extra_but_tools(name: str) -> None:
    (whole,) = EXTRAS["all"]
    assert name in whole.removeprefix("natix[").removesuffix("]").split(",")
    assert set(EXTRAS) == {"train", "pipelines", "vertex", "gcs", "s3", "nodes", "serve", "all", "dev", "bench"}
