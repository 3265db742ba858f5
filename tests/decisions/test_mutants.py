"""The tests have teeth: each small change to the source that voids a promise makes a named test fail.

A mutant is a copy of the package with one expression or statement replaced (`tests/mutants.py`). The same tests pass on
a copy that is not changed, so that a kill says something about the change.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import natix_lib
from tests.mutants import DoesNotApply, Mutant, mutated

ROOT = Path(natix_lib.__file__).parent.parent
DECISIONS = Path("natix_lib", "decisions")
GUARANTEE, POLICY, SELECTION, SWEEP, TEMPERATURE, PROPERTIES, ARGUMENTS, DRAWS, INTERVALS, CUT, CALIBRATION, BAND = (
    f"tests/decisions/test_{name}.py"
    for name in (
        *("guarantee", "policy", "selection", "sweep", "temperature", "properties"),
        *("arguments", "draws", "intervals", "cut", "calibration", "band"),
    )
)
DEPLOYMENT = "tests/decisions/test_deployment.py"
AUDIT = "tests/decisions/test_audit.py"
PRIOR, JOINT = "tests/decisions/test_prior.py", "tests/decisions/test_joint.py"
SLICES = "tests/decisions/test_slices.py"
DRIFT = "tests/decisions/test_drift.py"
UNIFORM = f"{DRIFT}::test_p_values_are_uniform_and_independent_however_small_the_reference_is"
FAIR = f"{DRIFT}::test_the_capital_is_fair_and_all_of_it_is_there_at_the_start"
ORDER_STATISTIC = f"{JOINT}::test_misses_are_an_order_statistic_of_the_positives"
COUNT_BY_HAND = f"{GUARANTEE}::test_the_sets_of_a_few_rows_are_those_of_a_count_by_hand"
MOST = "tests/decisions/test_oracles.py::test_the_most_errors_are_those_of_brute_force_and_never_fall[0.1-0.05]"
COUNTS = f"{SELECTION}::test_the_certificate_counts_what_the_runtime_will_accept"
CURVE = f"{SWEEP}::test_every_point_of_the_curve_is_what_counting_gives"
SHARED = f"{SELECTION}::test_rows_that_are_all_right_are_certified_from_the_number_on_that_a_test_lets_pass"
WALK = f"{BAND}::test_a_chain_is_the_plain_walk_over_the_sharp_ranks"

MUTANTS = {
    "an audit that bets more than it has": Mutant(
        "audit.log_wealth",
        "(right + 1) * np.log1p(-alpha)",
        "right * np.log1p(-alpha)",
        f"{AUDIT}::test_wealth_does_not_grow_on_average_where_the_promise_holds[0.3]",
    ),
    "an audit that forgets what was shown": Mutant(
        "audit.audit",
        "wealth >= needed",
        "(wealth >= needed) & (seen == len(seen))",
        f"{AUDIT}::test_what_was_once_shown_stays_shown_whatever_comes_after",
    ),
    "an audit that counts what is right": Mutant(
        "audit.audit",
        "np.cumsum(flags, dtype=np.int64)",
        "np.cumsum(~flags.astype(bool), dtype=np.int64)",
        f"{AUDIT}::test_a_promise_that_does_not_hold_is_broken_and_the_bound_says_by_how_much",
    ),
    "an audit that asks for too little": Mutant(
        "audit.audit",
        "-np.log(level)",
        "-np.log(level) / 8",
        f"{AUDIT}::test_bounds_hold_at_all_times_no_less_often_than_they_say",
    ),
    "errors from a rounded rate": Mutant(
        "curve.rank",
        "len(wrong) - np.searchsorted(wrong, levels, side='left')",
        "((last + 1) * ((len(wrong) - np.searchsorted(wrong, levels, side='left')) / (last + 1))).astype(int)",
        f"{SELECTION}::test_errors_are_counted_and_not_found_from_a_rounded_rate",
    ),
    "a split tie group": Mutant(
        "curve._tie_ends",
        "np.flatnonzero(np.append(falling[1:] < falling[:-1], True))",
        "np.arange(len(falling))",
        CURVE,
    ),
    "a rank inside a tie group": Mutant(
        "curve.rank",
        "Ranking(last + 1, levels, np.append(levels[1:], -np.inf), counts)",
        "Ranking(np.arange(1, len(falling) + 1), falling, np.append(falling[1:], -np.inf), "
        "np.cumsum(errors[np.argsort(-values)]))",
        COUNTS,
    ),
    "the threshold is the last accepted score": Mutant(
        "curve.rank",
        "Ranking(last + 1, levels, np.append(levels[1:], -np.inf), counts)",
        "Ranking(last + 1, levels, levels, counts)",
        COUNTS,
    ),
    "the threshold of the sweep is the last accepted score": Mutant(
        "sweep._curve", "np.append(levels[1:], -np.inf)", "levels", CURVE
    ),
    "one error more than the test allows": Mutant("binomial.most_errors", "return low", "return low + 1", MOST),
    "one error fewer than the test allows": Mutant(
        "binomial.most_errors", "return low", "return low - 1", f"{SHARED}[None-22]"
    ),
    "the test forgets an error": Mutant(
        "binomial.is_certified",
        "bdtr(errors, accepted, alpha) <= delta",
        "bdtr(errors - 1, accepted, alpha) <= delta",
        f"{SELECTION}::test_what_is_needed_has_known_answers",
    ),
    "the bound of one error fewer": Mutant(
        "binomial.upper_risk_bound",
        "betaincinv(errors + 1, accepted - errors, 1 - delta)",
        "betaincinv(errors, accepted - errors + 1, 1 - delta)",
        f"{SELECTION}::test_the_bound_is_clopper_and_pearsons",
    ),
    "a bound of both sides": Mutant(
        "binomial.upper_risk_bound",
        "betaincinv(errors + 1, accepted - errors, 1 - delta)",
        "betaincinv(errors + 1, accepted - errors, 1 - 2 * delta)",
        f"{SELECTION}::test_the_bound_is_clopper_and_pearsons",
    ),
    "fewer rows can be certified": Mutant(
        "binomial.least_accepted",
        "np.ceil(np.log(delta) / np.log1p(-alpha))",
        "np.floor(np.log(delta) / np.log1p(-alpha)) - 1",
        f"{SELECTION}::test_too_few_rows_are_an_answer_with_its_reason",
    ),
    "the whole of delta for a chain beside the band": Mutant(
        "selection._of_chain", "(1 - BAND_SHARE) * delta", "delta", f"{SHARED}[0.7-23]"
    ),
    "the whole of delta for the band beside a chain": Mutant(
        "selection._largest", "BAND_SHARE * delta", "delta", f"{SHARED}[0.7-23]"
    ),
    "each rank of the band has the whole of delta": Mutant(
        "band.staircase",
        "spent > delta",
        "spent > 100 * delta",
        f"{BAND}::test_simulated_walks_are_under_the_staircase_as_often_as_delta_allows",
    ),
    "a walk at the staircase is not under it": Mutant(
        "band.crossing",
        "most + 1 - first",
        "most - first",
        f"{BAND}::test_the_chance_that_a_walk_is_ever_under_the_staircase_is_a_count_in_fractions",
    ),
    "the staircase has a step too early": Mutant(
        "band.first_ranks",
        "result: Ints = high",
        "result: Ints = high - 1",
        f"{BAND}::test_a_sharp_rank_is_the_first_that_scipys_binomial_passes",
    ),
    "a chain jumps over two errors too many": Mutant(
        "band.chain",
        "np.searchsorted(ranking.errors, allowed, side='right')",
        "np.searchsorted(ranking.errors, allowed + 2, side='right')",
        WALK,
    ),
    "a chain tests blunt ranks": Mutant(
        "band.chain",
        "first_rank(allowed, alpha, delta)",
        "first_rank(allowed, alpha, delta) + 1",
        WALK,
    ),
    "a chain starts behind its start": Mutant(
        "band.chain", "most_errors(min(start, n), alpha, delta)", "most_errors(n, alpha, delta)", WALK
    ),
    "each of several promises has the whole of delta": Mutant(
        "joint.certify_jointly", "delta / len(asked)", "delta", ORDER_STATISTIC
    ),
    "misses are a share of the accepted": Mutant("joint._counted", "none + n", "m", ORDER_STATISTIC),
    "one of several promises is kept by the rows' own share": Mutant(
        "joint._counted",
        "k <= stairs.at(m)",
        "k <= asked.alpha * m",
        f"{JOINT}::test_all_that_is_certified_holds_together[half positive-300]",
    ),
    "a slice is certified on all rows": Mutant(
        "joint.Outcome.spoken_of",
        "self.slices[asked.of_slice], wrong",
        "np.ones(len(wrong), dtype=np.bool_), wrong",
        f"{SLICES}::test_a_slice_is_counted_on_its_own_rows_one_of_each_of_its_groups[1]",
    ),
    "a sample of rows is in the slices of others": Mutant(
        "joint.Outcome.every",
        "mask[::step]",
        "mask[: len(self.scores[::step])]",
        f"{SLICES}::test_a_sample_of_rows_keeps_each_in_its_slices",
    ),
    "a value that no certified row has is no promise": Mutant(
        "slices.Tags.of",
        "(columns, *others)",
        "(columns,)",
        f"{SLICES}::test_a_tag_stands_for_each_value_of_any_role_and_a_value_for_itself",
    ),
    "slices share no delta": Mutant(
        "calibration.Terms._share",
        "len(self.asked(classes))",
        "len([each for each in self.asked(classes) if each.of_slice is None])",
        f"{SLICES}::test_each_slice_takes_its_share_of_delta",
    ),
    "a row is accepted by another class's threshold": Mutant(
        "policy.Policy._decide",
        "np.array(self.class_thresholds)[prediction]",
        "min(self.class_thresholds)",
        f"{JOINT}::test_a_policy_accepts_exactly_the_rows_that_were_certified",
    ),
    "what is needed is said for the whole of delta": Mutant(
        "selection.needed_independent",
        "_of_chain(delta) if has_start else delta",
        "delta",
        f"{SELECTION}::test_what_is_needed_has_known_answers",
    ),
    "the half that is left unseen is forgotten": Mutant(
        "selection.needed_independent",
        "2 * needed - 1",
        "needed",
        f"{CALIBRATION}::test_what_is_said_to_be_needed_with_sets_is_certified_and_one_less_is_not[False]",
    ),
    "infeasible is the first threshold": Mutant(
        "selection.certify_selection",
        "index is None",
        "(index := index or 0) is None",
        f"{SELECTION}::test_too_few_rows_are_an_answer_with_its_reason",
    ),
    "the bound at the whole delta": Mutant(
        "selection.certify_selection",
        "upper_risk_bound(k, m, spent)",
        "upper_risk_bound(k, m, delta)",
        f"{SELECTION}::test_the_bound_of_a_certificate_is_at_the_delta_spent",
    ),
    "rows are tested, not groups": Mutant(
        "draws.independent_rows",
        "np.sort(order[places])",
        "slice(None)",
        f"{GUARANTEE}::test_near_duplicates_void_the_guarantee_unless_groups_are_told[band]",
    ),
    "rows are taken for sets, not groups": Mutant(
        "sets.fit_prediction_sets",
        "independent_rows(groups, p.round(DIGITS), y, stands)",
        "(slice(None), 'group')",
        f"{GUARANTEE}::test_near_duplicates_void_the_promise_of_the_sets_unless_groups_are_told",
    ),
    "scrc_i forgets the image to come": Mutant(
        "sets.fit_prediction_sets",
        "np.ceil((m + 1) * (1 - alpha))",
        "np.ceil(m * (1 - alpha))",
        f"{GUARANTEE}::test_scrc_i_keeps_the_mean_on_few_rows_where_the_test_image_counts",
    ),
    "sets miss one more": Mutant(
        "sets.fit_prediction_sets", "label_scores[m - allowed - 1]", "label_scores[m - allowed - 2]", COUNT_BY_HAND
    ),
    "too few accepted rows miss none": Mutant(
        "sets.fit_prediction_sets", "allowed < 0", "(allowed := max(allowed, 0)) < 0 or m == 0", COUNT_BY_HAND
    ),
    "scrc_i promises what pac does": Mutant(
        "sets.fit_prediction_sets", "certified = procedure == PAC", "certified = True", COUNT_BY_HAND
    ),
    "sets are fitted on the rejected too": Mutant(
        "sets.fit_prediction_sets",
        "chosen[stands[chosen]]",
        "chosen",
        f"{PROPERTIES}::test_the_runtime_decides_as_the_fit_did_for_a_row_alone_in_a_batch_and_in_any_order",
    ),
    "at the threshold is accepted": Mutant(
        "policy.Policy._decide",
        "confidence > self.threshold",
        "confidence >= self.threshold",
        f"{POLICY}::test_the_threshold_only_rejects",
    ),
    "the temperature divides the confidence": Mutant(
        "policy.Policy._decide",
        "predictions_and_log_odds(values)",
        "predictions_and_log_odds(values / self.temperature)",
        f"{POLICY}::test_a_temperature_serves_probabilities_and_never_changes_a_decision",
    ),
    "rejected are not missed": Mutant(
        "sweep._f1_curves",
        "macro[rows] = np.diff(hits / (predictions + total), prepend=0.0)",
        "macro[rows] = np.diff(hits / (predictions + np.cumsum(hit)), prepend=0.0)",
        CURVE,
    ),
    "rejected are not missed in the chosen F1": Mutant(
        "sweep._counted_f1",
        "(predictions + totals)[present]",
        "(predictions + np.bincount(y, minlength=classes))[present]",
        f"{SWEEP}::test_the_chosen_threshold_is_the_best_of_all",
    ),
    "the temperature overflows": Mutant(
        "temperature._series.work",
        "z -= z.max(axis=0)",
        "pass",
        f"{TEMPERATURE}::test_the_nll_is_never_above_that_at_temperature_one",
    ),
    "a step away from the minimum": Mutant(
        "temperature._step",
        "step = -slope / second",
        "step = slope / second",
        f"{PROPERTIES}::test_the_temperature_is_found_in_few_passes",
    ),
    "the bracket on the wrong side": Mutant(
        "temperature._minimum",
        "(beta, high) if slope < 0 else (low, beta)",
        "(beta, high) if slope > 0 else (low, beta)",
        f"{TEMPERATURE}::test_the_minimum_is_the_one_that_a_scalar_search_finds",
    ),
    "frames prove as much as groups": Mutant(
        "temperature.fit_temperature",
        "len(np.unique(check_groups(groups, len(y))))",
        "len(y)",
        f"{TEMPERATURE}::test_frames_of_one_group_prove_as_much_as_one",
    ),
    "a mask of 0 and 1 is read as row numbers": Mutant(
        "score.check_mask",
        "values == 1",
        "values.astype(np.int64)",
        f"{ARGUMENTS}::test_398_wrong_of_400_are_not_certified_by_a_mask_of_ones",
    ),
    "probabilities need not be numbers in [0, 1]": Mutant(
        "score.check_probabilities",
        "~((values >= 0) & (values <= 1)).all(axis=1)",
        "(values > 2).any(axis=1)",
        f"{ARGUMENTS}::test_probabilities_that_are_none_are_not_certified",
    ),
    "a lot of the row alone": Mutant(
        "draws._lots",
        "np.column_stack([held, count])",
        "np.column_stack([held, 0 * count])",
        f"{DRAWS}::test_the_draw_does_not_prefer_right_rows_to_wrong_ones_where_all_groups_hold_the_same",
    ),
    "rows that are alike keep the order they come in": Mutant(
        "draws._lots",
        "np.lexsort((hashes, number))",
        "np.argsort(number, kind='stable')",
        f"{DRAWS}::test_neither_the_order_of_rows_nor_the_names_of_groups_change_what_is_drawn",
    ),
    "no limit for a temperature without errors": Mutant(
        "temperature.fit_temperature",
        "depth >= smoothed",
        "depth > 0",
        f"{TEMPERATURE}::test_twelve_rows_that_are_all_right_prove_no_certainty",
    ),
    "the limit warms an overconfident model": Mutant(
        "temperature.fit_temperature",
        "_minimum(values, smoothed, 1.0, 1.0, most)",
        "_minimum(values, smoothed, 1.0, least, most)",
        f"{TEMPERATURE}::test_twelve_rows_that_are_all_right_prove_no_certainty",
    ),
    "nothing seen is certain": Mutant(
        "intervals.share_interval",
        "effective = alike",
        "effective = np.inf",
        f"{INTERVALS}::test_none_wrong_of_nine_is_no_certainty",
    ),
    "a group counts for its images": Mutant(
        "intervals.share_interval",
        "effective = alike",
        "effective = n",
        f"{INTERVALS}::test_a_single_group_says_as_much_as_a_single_image",
    ),
    "a cut is judged where it was tuned": Mutant(
        "cut.judge_cut",
        "((half, ~half), (~half, half))",
        "((half, half), (~half, ~half))",
        f"{CUT}::test_a_cut_that_is_worth_nothing_is_kept_in_few_trials[30]",
    ),
    "a cut need not be improbable": Mutant(
        "cut.judge_cut",
        "p_value <= LEVEL",
        "p_value <= 0.5",
        f"{CUT}::test_a_cut_that_is_worth_nothing_is_kept_in_few_trials[30]",
    ),
    "frames are witnesses of a cut": Mutant(
        "cut.judge_cut",
        "independent_rows(groups, values, truth)",
        "(slice(None), 'group')",
        f"{CUT}::test_frames_of_one_group_are_one_witness",
    ),
    "a cut on a row": Mutant(
        "cut.tune_cut", "lower + 0.5 * (upper - lower)", "upper", f"{CUT}::test_a_cut_lies_between_rows"
    ),
    "log-odds in float32": Mutant(
        "blocks.columns",
        "np.array(values[block].T, dtype=np.float64, order='C')",
        "np.array(values[block].T, dtype=np.float32, order='C')",
        f"{PROPERTIES}::test_scores_are_those_of_scipy_and_the_temperature_is_a_minimum",
    ),
    "class weights are applied once more": Mutant(
        "prior.fit_prior_shift",
        "-strength * log_weights",
        "strength * log_weights",
        f"{PRIOR}::test_a_known_shift_is_recovered_whatever_the_scale_of_the_logits[1.0]",
    ),
    "the strength is the slope and not the temperature": Mutant(
        "prior._strength",
        "found[1] / np.exp(found[0])",
        "found[1] * np.exp(found[0])",
        f"{PRIOR}::test_a_known_shift_is_recovered_whatever_the_scale_of_the_logits[3.0]",
    ),
    "frames are witnesses of the strength": Mutant(
        "prior.fit_prior_shift",
        "_strength(values, truth, log_weights, units)",
        "_strength(values, truth, log_weights, len(truth))",
        f"{PRIOR}::test_frames_of_one_group_speak_once",
    ),
    "the strength has no prior": Mutant(
        "prior.fit_prior_shift",
        "_strength(values, truth, log_weights, units)",
        "_strength(values, truth, log_weights, 10**12)",
        f"{PRIOR}::test_where_no_image_is_wrong_the_strength_stays_near_one",
    ),
    "the deployment prior forgets the temperature": Mutant(
        "deployment.fit_deployment",
        "temperature * np.log(prior / (counts / len(truth)))",
        "np.log(prior / (counts / len(truth)))",
        f"{DEPLOYMENT}::test_the_bias_puts_exact_log_odds_of_one_prior_to_another[2.5]",
    ),
    "draws that do not fit are free": Mutant(
        "deployment.terms_at_prior",
        "(1 - MISFIT) * terms.delta",
        "terms.delta",
        f"{DEPLOYMENT}::test_draws_that_do_not_fit_are_paid_for_in_delta",
    ),
    "rows at a prior in fixed numbers": Mutant(
        "draws.rows_at_prior",
        "np.bincount(places, minlength=len(classes))",
        "np.round(m * shares).astype(np.int64)",
        f"{DEPLOYMENT}::test_the_drawn_rows_are_an_iid_sample_at_the_prior",
    ),
    "frames of a group at a prior": Mutant(
        "deployment.independent_at_prior",
        "independent_rows(group, values, truth)",
        "independent_rows(None, values, truth)",
        f"{DEPLOYMENT}::test_one_row_of_each_group_is_drawn_and_none_twice",
    ),
    "misses of the drawn rows alone": Mutant(
        "joint.counted_for",
        "asked.kind == MISSES and self.positives is not None",
        "False",
        f"{DEPLOYMENT}::test_misses_count_all_positives_and_the_rest_the_rows_at_the_prior",
    ),
    "the image is not among those that it is ranked among": Mutant(
        "drift.Drift.p_values", "self._counts[level] += 1", "self._counts[level] += 0", UNIFORM
    ),
    "p-values without ties": Mutant("drift.Drift.p_values", "self._random.random()", "0.5", UNIFORM),
    "a block begins with more than waits": Mutant(
        "drift.Drift._bet", "(_waiting(block) - _waiting(block + 1)) / len(SLOPES)", "1 / len(SLOPES)", FAIR
    ),
    "bets that are not fair": Mutant(
        "drift.Drift._bet", "p_values[:, np.newaxis] - 0.5", "p_values[:, np.newaxis]", FAIR
    ),
    "the whole level for each game": Mutant(
        "drift.Drift.__init__",
        "np.array([0.5, *[0.5 / games] * games])",
        "np.ones(1 + games)",
        f"{DRIFT}::test_parts_of_the_level_sum_to_one_whatever_the_classes",
    ),
    "frames of one group in the reference": Mutant(
        "drift.reference_of",
        "predictions_and_log_odds(values[rows])",
        "predictions_and_log_odds(values)",
        f"{DRIFT}::test_a_reference_takes_one_image_of_each_group_in_whatever_order_they_stand",
    ),
}


def copied(folder: Path, room: str = "decisions") -> Path:
    """The package and the tests of a room of it, alone in a folder."""
    bare = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "natix_lib", folder / "natix_lib", ignore=bare)
    shutil.copytree(ROOT / "tests" / room, folder / "tests" / room, ignore=bare)
    shutil.copy(ROOT / "tests" / "__init__.py", folder / "tests")
    return folder


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    alone = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env={**clean, **alone}, capture_output=True, text=True, check=False)


def run_tests(folder: Path, *tests: str, plugins: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    options = ("-q", "-x", "--noconftest", "--tb=line", "-p", "no:cacheprovider", *(f"-p{name}" for name in plugins))
    return python(folder, "-m", "pytest", *options, "-c", os.devnull, "--rootdir", str(folder), *tests)


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_applies_to_the_source_of_today_and_names_a_test(name: str) -> None:
    mutant = MUTANTS[name]
    try:
        mutated((ROOT / DECISIONS / f"{mutant.module}.py").read_text(encoding="utf-8"), mutant)
    except DoesNotApply as error:
        pytest.fail(f"mutant {name!r} no longer applies: {error}", pytrace=False)
    file, _, test = mutant.test.partition("::")
    assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8"), f"no test {mutant.test}"


@pytest.mark.slow
def test_the_copy_is_what_is_imported_and_passes_every_test_that_kills(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    where = python(folder, "-c", "import natix_lib.decisions as d; print(d.__file__)").stdout.strip()
    assert Path(where) == folder / DECISIONS / "__init__.py"
    done = run_tests(folder, *sorted({mutant.test for mutant in MUTANTS.values()}))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow  # each is a process of its own
@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_killed(name: str, tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    source = copied(tmp_path) / DECISIONS / f"{mutant.module}.py"
    source.write_text(mutated(source.read_text(encoding="utf-8"), mutant), encoding="utf-8")
    done = run_tests(tmp_path, mutant.test)
    assert done.returncode == 1, done.stdout + done.stderr  # 0: survived; 2 to 5: no test ran
    summary = done.stdout.splitlines()[-1]
    assert "1 failed" in summary and "error" not in summary, done.stdout
    for wrong in ("SyntaxError", "NameError", "AttributeError", "TypeError", "IndexError", "UnboundLocalError"):
        assert wrong not in done.stdout, done.stdout  # a change of the result, not a crash
