"""The tests have teeth: each small change to the source that voids a promise makes a named test fail.

A mutant is a copy of the package with one expression replaced. The same tests pass on a copy that is not changed, so
that a kill says something about the change.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import natix_lib

pytestmark = pytest.mark.slow  # each is a process of its own
ROOT = Path(natix_lib.__file__).parent.parent
GUARANTEE, POLICY, SELECTION, SWEEP, TEMPERATURE, PROPERTIES, ARGUMENTS, DRAWS, INTERVALS, CUT = (
    f"tests/decisions/test_{name}.py"
    for name in (
        *("guarantee", "policy", "selection", "sweep", "temperature", "properties"),
        *("arguments", "draws", "intervals", "cut"),
    )
)
COUNT_BY_HAND = f"{GUARANTEE}::test_the_sets_of_a_few_rows_are_those_of_a_count_by_hand"
COUNTS = f"{SELECTION}::test_the_certificate_counts_what_the_runtime_will_accept"
CURVE = f"{SWEEP}::test_every_point_of_the_curve_is_what_counting_gives"
EXACT_TEST = f"{SELECTION}::test_what_is_certified_passes_the_exact_test_at_the_delta_spent"
SHARED = f"{SELECTION}::test_delta_is_shared_among_the_tests"


@dataclass(frozen=True)
class Mutant:
    """A file of natix_lib/decisions, a text that it holds once, what replaces it, and the test that must fail."""

    file: str
    old: str
    new: str
    test: str


MUTANTS = {
    "errors from a rounded rate": Mutant(
        "curve.py",
        'counts = len(wrong) - np.searchsorted(wrong, levels, side="left")',
        'm = last + 1\n    counts = (m * ((len(wrong) - np.searchsorted(wrong, levels, side="left")) / m)).astype(int)',
        f"{SELECTION}::test_errors_are_counted_and_not_found_from_a_rounded_rate",
    ),
    "a split tie group": Mutant(
        "curve.py",
        "return np.flatnonzero(np.append(falling[1:] < falling[:-1], True))",
        "return np.arange(len(falling))",
        CURVE,
    ),
    "a rank inside a tie group": Mutant(
        "curve.py",
        "    last = _tie_ends(falling)\n    levels = falling[last]\n"
        '    wrong = np.sort(values[check_mask("errors", errors, len(values))])\n'
        '    counts = len(wrong) - np.searchsorted(wrong, levels, side="left")\n',
        "    last, levels = np.arange(len(falling)), falling\n    counts = np.cumsum(errors[np.argsort(-values)])\n",
        COUNTS,
    ),
    "the threshold is the last accepted score": Mutant(
        "curve.py",
        "return Ranking(last + 1, levels, np.append(levels[1:], -np.inf), counts)",
        "return Ranking(last + 1, levels, levels, counts)",
        COUNTS,
    ),
    "the threshold of the sweep is the last accepted score": Mutant(
        "sweep.py",
        "threshold_logodds=np.append(levels[1:], -np.inf)",
        "threshold_logodds=levels",
        CURVE,
    ),
    "one error more than the test allows": Mutant(
        "binomial.py", "    return low\n", "    return low + 1\n", EXACT_TEST
    ),
    "one error fewer than the test allows": Mutant("binomial.py", "    return low\n", "    return low - 1\n", SHARED),
    "the whole delta for each chain": Mutant(
        "selection.py", "spent = delta / CHAINS", "spent = delta", f"{SHARED}[ltt-36]"
    ),
    "the whole delta for each step of sgr": Mutant(
        "selection.py",
        "spent = delta / max(1, int(np.ceil(np.log2(len(ranking.ends) + 1))))",
        "spent = delta",
        f"{SHARED}[sgr-81]",
    ),
    "the whole delta for each threshold of the grid": Mutant(
        "selection.py", "spent = delta / len(thresholds)", "spent = delta", f"{SHARED}[grid-36]"
    ),
    "sgr keeps the last tried": Mutant(
        "selection.py",
        "    return best, spent\n\n\ndef _thresholds",
        "    return middle, spent\n\n\ndef _thresholds",
        f"{EXACT_TEST}[sgr]",
    ),
    "the grid returns the score of a row": Mutant(
        "selection.py",
        'if procedure == "grid":  # the fixed threshold',
        'if procedure == "none":  # the fixed threshold',
        f"{SELECTION}::test_the_grid_returns_a_threshold_of_its_own",
    ),
    "infeasible is the first threshold": Mutant(
        "selection.py",
        "    if index is None:\n",
        "    index = index or 0\n    if index is None:\n",
        f"{SELECTION}::test_too_few_rows_are_an_answer_with_its_reason",
    ),
    "rows are tested, not groups": Mutant(
        "draws.py",
        'return np.sort(order[places]), "group"',
        'return slice(None), "group"',
        f"{GUARANTEE}::test_near_duplicates_void_the_guarantee_unless_groups_are_told[ltt]",
    ),
    "rows are taken for sets, not groups": Mutant(
        "sets.py",
        "rows, unit = independent_rows(groups, p, y, stands)",
        'rows, unit = slice(None), "group"',
        f"{GUARANTEE}::test_near_duplicates_void_the_promise_of_the_sets_unless_groups_are_told",
    ),
    "scrc_i forgets the image to come": Mutant(
        "sets.py",
        "np.ceil((m + 1) * (1 - alpha))",
        "np.ceil(m * (1 - alpha))",
        f"{GUARANTEE}::test_scrc_i_keeps_the_mean_on_few_rows_where_the_test_image_counts",
    ),
    "sets miss one more": Mutant("sets.py", "own[m - allowed - 1]", "own[m - allowed - 2]", COUNT_BY_HAND),
    "too few accepted rows miss none": Mutant(
        "sets.py", "    if allowed < 0:\n", "    allowed = max(allowed, 0)\n    if m == 0:\n", COUNT_BY_HAND
    ),
    "sets are fitted on the rejected too": Mutant(
        "sets.py",
        "    chosen = chosen[stands[chosen]]\n",
        "",
        f"{PROPERTIES}::test_the_runtime_decides_as_the_fit_did_for_a_row_alone_in_a_batch_and_in_any_order",
    ),
    "at the threshold is accepted": Mutant(
        "policy.py",
        "confidence > self.threshold",
        "confidence >= self.threshold",
        f"{POLICY}::test_the_threshold_only_rejects",
    ),
    "the temperature divides the confidence": Mutant(
        "policy.py",
        "predictions_and_log_odds(values)\n",
        "predictions_and_log_odds(values / self.temperature)\n",
        f"{POLICY}::test_a_temperature_serves_probabilities_and_never_changes_a_decision",
    ),
    "rejected are not missed": Mutant(
        "sweep.py", "np.diff(hits / (saids + total)", "np.diff(hits / (saids + np.cumsum(hit))", CURVE
    ),
    "rejected are not missed in the chosen F1": Mutant(
        "sweep.py",
        "(saids + totals)[present]",
        "(saids + np.bincount(y, minlength=classes))[present]",
        f"{SWEEP}::test_the_chosen_threshold_is_the_best_of_all",
    ),
    "the temperature overflows": Mutant(
        "temperature.py",
        "        z -= z.max(axis=0)\n        weights",
        "        weights",
        f"{TEMPERATURE}::test_the_nll_is_never_above_that_at_temperature_one",
    ),
    "a step away from the minimum": Mutant(
        "temperature.py",
        "    step = -slope / second\n",
        "    step = slope / second\n",
        f"{PROPERTIES}::test_the_temperature_is_found_in_few_passes",
    ),
    "the bracket on the wrong side": Mutant(
        "temperature.py",
        "(beta, high) if slope < 0 else (low, beta)",
        "(beta, high) if slope > 0 else (low, beta)",
        f"{TEMPERATURE}::test_the_minimum_is_the_one_that_a_scalar_search_finds",
    ),
    "a mask of 0 and 1 is read as row numbers": Mutant(
        "score.py",
        "    result: Bools = values == 1\n    return result",
        "    return values.astype(np.int64)",
        f"{ARGUMENTS}::test_398_wrong_of_400_are_not_certified_by_a_mask_of_ones",
    ),
    "probabilities need not be numbers in [0, 1]": Mutant(
        "score.py",
        "~((values >= 0) & (values <= 1)).all(axis=1)",
        "(values > 2).any(axis=1)",
        f"{ARGUMENTS}::test_probabilities_that_are_none_are_not_certified",
    ),
    "a lot of the row alone": Mutant(
        "draws.py",
        "    pairs = np.column_stack([held, count])\n",
        "    pairs = np.column_stack([held, 0 * count])\n",
        f"{DRAWS}::test_the_draw_does_not_prefer_right_rows_to_wrong_ones_where_all_groups_hold_the_same",
    ),
    "rows that are alike keep the order they come in": Mutant(
        "draws.py",
        "np.lexsort((hashes, number))",
        'np.argsort(number, kind="stable")',
        f"{DRAWS}::test_neither_the_order_of_rows_nor_the_names_of_groups_change_what_is_drawn",
    ),
    "no limit for a temperature without errors": Mutant(
        "temperature.py",
        "        if own >= smoothed:\n",
        "        if own > 0:\n",
        f"{TEMPERATURE}::test_twelve_rows_that_are_all_right_prove_no_certainty",
    ),
    "the limit warms an overconfident model": Mutant(
        "temperature.py",
        "smoothed, 1.0, 1.0, most)[0]",
        "smoothed, 1.0, least, most)[0]",
        f"{TEMPERATURE}::test_twelve_rows_that_are_all_right_prove_no_certainty",
    ),
    "nothing seen is certain": Mutant(
        "intervals.py",
        "        effective = alike\n",
        "        effective = np.inf\n",
        f"{INTERVALS}::test_none_wrong_of_nine_is_no_certainty",
    ),
    "a group counts for its images": Mutant(
        "intervals.py",
        "        effective = alike\n",
        "        effective = n\n",
        f"{INTERVALS}::test_a_single_group_says_as_much_as_a_single_image",
    ),
    "a cut is judged where it was tuned": Mutant(
        "cut.py",
        "((half, ~half), (~half, half))",
        "((half, half), (~half, ~half))",
        f"{CUT}::test_a_cut_that_is_worth_nothing_is_kept_in_few_trials[30]",
    ),
    "log-odds in float32": Mutant(
        "blocks.py",
        'np.array(values[block].T, dtype=np.float64, order="C")',
        'np.array(values[block].T, dtype=np.float32, order="C")',
        f"{PROPERTIES}::test_scores_are_those_of_scipy_and_the_temperature_is_a_minimum",
    ),
}


def copied(folder: Path) -> Path:
    """The package and its tests, alone in a folder."""
    bare = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "natix_lib", folder / "natix_lib", ignore=bare)
    shutil.copytree(ROOT / "tests" / "decisions", folder / "tests" / "decisions", ignore=bare)
    shutil.copy(ROOT / "tests" / "__init__.py", folder / "tests")
    return folder


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    alone = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env={**clean, **alone}, capture_output=True, text=True, check=False)


def run_tests(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    options = ("-q", "-x", "--noconftest", "--tb=line", "-p", "no:cacheprovider")
    return python(folder, "-m", "pytest", *options, "-c", os.devnull, "--rootdir", str(folder), *tests)


def test_the_copy_is_what_is_imported_and_passes_every_test_that_kills(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    where = python(folder, "-c", "import natix_lib.decisions as d; print(d.__file__)").stdout.strip()
    assert Path(where) == folder / "natix_lib" / "decisions" / "__init__.py"
    done = run_tests(folder, *sorted({mutant.test for mutant in MUTANTS.values()}))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_killed(name: str, tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    source = copied(tmp_path) / "natix_lib" / "decisions" / mutant.file
    text = source.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    source.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    done = run_tests(tmp_path, mutant.test)
    assert done.returncode == 1, done.stdout + done.stderr  # 0: survived; 2 to 5: no test ran
    summary = done.stdout.splitlines()[-1]
    assert "1 failed" in summary and "error" not in summary, done.stdout
    for wrong in ("SyntaxError", "NameError", "AttributeError", "TypeError", "IndexError", "UnboundLocalError"):
        assert wrong not in done.stdout, done.stdout  # a change of the result, not a crash
