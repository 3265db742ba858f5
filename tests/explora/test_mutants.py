"""The gate's tests have teeth: each small change that voids its promise makes a named test fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import natix_lib
from tests.mutants import Mutant, mutated

ROOT = Path(natix_lib.__file__).parent.parent
GATE, TESTS = Path("natix_lib", "explora", "gate.py"), Path("tests", "explora", "test_gate.py")
MUTANTS = {
    "the empty subset forgotten": Mutant(
        "gate.gain",
        "(1 + int((means <= 0).sum())) / total",
        "int((means <= 0).sum()) / total",
        f"{TESTS}::test_the_p_value_is_that_of_scipys_sign_flip_test_over_groups",
    ),
    "images as observations": Mutant(
        "gate.gain",
        "np.unique(np.asarray(groups), return_inverse=True)",
        "np.unique(np.arange(len(groups)), return_inverse=True)",
        f"{TESTS}::test_images_of_one_group_are_one_observation",
    ),
    "a bound of two sides": Mutant(
        "gate.gain",
        "math.floor(LEVEL * total) - 1",
        "math.floor(LEVEL * total / 2) - 1",
        f"{TESTS}::test_bounds_are_the_shifts_that_a_sign_flip_test_over_groups_just_bears",
    ),
    "a class of the held-out groups alone": Mutant(
        "gate.held_out",
        "left[label] > count",
        "left[label] >= count",
        f"{TESTS}::test_whole_groups_are_held_out_whatever_their_order_and_the_rest_has_every_class",
    ),
}


@pytest.mark.slow  # each is a process of its own
@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_killed(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "natix_lib", tmp_path / "natix_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / TESTS.parent).mkdir(parents=True)
    for place in (Path("tests", "__init__.py"), TESTS.parent / "__init__.py", TESTS):
        shutil.copy(ROOT / place, tmp_path / place)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV_"))}
    alone = {"PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    def last_line() -> str:
        options = ("-q", "-x", "--noconftest", "--tb=line", "-p", "no:cacheprovider", "-c", os.devnull)
        command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), MUTANTS[name].test]
        done = subprocess.run(command, cwd=tmp_path, env={**clean, **alone}, capture_output=True, text=True)
        return done.stdout.splitlines()[-1]

    assert "1 passed" in last_line()
    source = tmp_path / GATE
    source.write_text(mutated(source.read_text(encoding="utf-8"), MUTANTS[name]), encoding="utf-8")
    assert "1 failed" in last_line()
