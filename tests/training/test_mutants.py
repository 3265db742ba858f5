"""The tests of what training watches have teeth, as `tests/decisions/test_mutants.py` has them for decisions."""

from pathlib import Path

import pytest

from tests.decisions.test_mutants import ROOT, copied, run_tests
from tests.mutants import Mutant, mutated

TRAINING = Path("natix_lib", "training")
VIEWS, AUGMENT = "tests/training/test_views.py", "tests/training/test_augment.py"
WATCH, FIT = "tests/training/test_watch.py", "tests/training/test_fit.py"

MUTANTS = {
    "a macro-F1 over classes that are not there": Mutant(
        "watch.figures",
        "true + answered > 0",
        "true + answered >= 0",
        f"{WATCH}::test_one_answer_for_all_has_no_correlation_and_a_macro_f1_of_the_classes_that_are_there",
    ),
    "hits that are counted by the answers of all": Mutant(
        "watch.figures",
        "truth[hit]",
        "answer",
        f"{WATCH}::test_the_figures_are_those_of_scikit_learn[0-5]",
    ),
    "a loss that is watched upside down": Mutant(
        "watch.ranked",
        "mode == 'max'",
        "mode != ''",
        f"{WATCH}::test_the_monitor_chooses_the_epoch_whose_weights_are_kept[val_select/loss-4]",
    ),
    "a tie that counts as progress": Mutant(
        "watch.compared",
        "rank[0] > before[0]",
        "rank > before",
        f"{WATCH}::test_patience_counts_the_monitored_figure_and_no_other[val_select/mcc]",
    ),
    "a view that is drawn for the place of an image in its batch": Mutant(
        "views.Views.__getitem__",
        "self.images.ids[index]",
        "self.images.ids[0]",
        f"{VIEWS}::test_views_of_two_images_are_drawn_apart",
    ),
    "numbers of the first views for all that are done at once": Mutant(
        "augment.finished",
        "numbers[rows]",
        "numbers[: len(planes)]",
        f"{AUGMENT}::test_a_batch_that_is_done_in_parts_is_changed_by_its_own_numbers",
    ),
    "a compression of another quality": Mutant(
        "jpeg.tables",
        "200 - 2 * quality",
        "200 - quality",
        f"{AUGMENT}::test_compression_is_that_of_libjpeg[64-75]",
    ),
    "a contrast around half a grey": Mutant(
        "augment._changed",
        "mixed(shown, middle, table[:, CONTRAST])",
        "mixed(shown, 0 * middle + 0.5, table[:, CONTRAST])",
        f"{AUGMENT}::test_light_is_changed_as_pillow_changes_it_but_for_its_rounding[2-Contrast-0.6]",
    ),
    "an overflow that is named by the wrong step": Mutant(
        "fit._require_finite",
        "step - len(values) + first + 1",
        "step - len(values) + first",
        f"{FIT}::test_a_long_epoch_is_stopped_soon_after_the_step_that_overflows",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_applies_to_the_source_of_today_and_names_a_test(name: str) -> None:
    mutant = MUTANTS[name]
    mutated((ROOT / TRAINING / f"{mutant.module}.py").read_text(encoding="utf-8"), mutant)
    file, _, test = mutant.test.partition("::")
    assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8"), f"no test {mutant.test}"


@pytest.mark.slow  # each is a process of its own
@pytest.mark.parametrize("name", [None, *MUTANTS])
def test_the_mutant_is_killed_and_the_source_as_it_is_lives(name: str | None, tmp_path: Path) -> None:
    folder = copied(tmp_path, "training")
    if name is None:
        done = run_tests(folder, *sorted({mutant.test for mutant in MUTANTS.values()}))
        assert done.returncode == 0, done.stdout + done.stderr
        return
    mutant = MUTANTS[name]
    source = folder / TRAINING / f"{mutant.module}.py"
    source.write_text(mutated(source.read_text(encoding="utf-8"), mutant), encoding="utf-8")
    done = run_tests(folder, mutant.test)
    assert done.returncode == 1, done.stdout + done.stderr  # 0: survived; 2 to 5: no test ran
    assert "1 failed" in done.stdout.splitlines()[-1], done.stdout
    for wrong in ("SyntaxError", "NameError", "AttributeError", "TypeError", "IndexError", "UnboundLocalError"):
        assert wrong not in done.stdout, done.stdout  # a change of the result, not a crash
