"""The tests of poolings have teeth, as `tests/decisions/test_mutants.py` has them for decisions."""

from pathlib import Path

import pytest

from tests.decisions.test_mutants import ROOT, copied, run_tests
from tests.mutants import Mutant, mutated

SOURCE, TESTS = Path("natix_lib", "backbones", "pooling.py"), "tests/backbones/test_pooling.py"

MUTANTS = {
    "registers that are weighed": Mutant(
        "pooling.TokenPooling.forward",
        "torch.cat([tokens[:, :1], tokens[:, prefix:]], dim=1)",
        "tokens",
        f"{TESTS}::test_a_query_weighs_the_class_token_and_the_patches_and_no_register",
    ),
    "scores that are not scaled": Mutant(
        "pooling.TokenPooling.forward",
        "size**0.5",
        "size",
        f"{TESTS}::test_a_query_weighs_the_class_token_and_the_patches_and_no_register",
    ),
    "columns in the order of the names": Mutant(
        "pooling.columns",
        "among.index(name) * hidden_size",
        "names.index(name) * hidden_size",
        f"{TESTS}::test_the_columns_of_a_pooling_are_what_it_gives_alone",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_applies_to_the_source_of_today_and_names_a_test(name: str) -> None:
    mutated((ROOT / SOURCE).read_text(encoding="utf-8"), MUTANTS[name])
    file, _, test = MUTANTS[name].test.partition("::")
    assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"no test {test}"


@pytest.mark.slow  # each is a process of its own
@pytest.mark.parametrize("name", [None, *MUTANTS])
def test_the_mutant_is_killed_and_the_source_as_it_is_lives(name: str | None, tmp_path: Path) -> None:
    folder = copied(tmp_path, "backbones")
    if name is None:
        done = run_tests(folder, *sorted({mutant.test for mutant in MUTANTS.values()}))
        assert done.returncode == 0, done.stdout + done.stderr
        return
    (folder / SOURCE).write_text(mutated((ROOT / SOURCE).read_text(encoding="utf-8"), MUTANTS[name]), encoding="utf-8")
    done = run_tests(folder, MUTANTS[name].test)
    assert done.returncode == 1 and "1 failed" in done.stdout.splitlines()[-1], done.stdout + done.stderr
    assert "Error: " not in done.stdout or "AssertionError" in done.stdout, done.stdout  # a change, not a crash
