"""What must hold for all logits: symmetries, precisions, edges, and one decision wherever it is made.

Logits are multiples of 1/64, on which adding a whole number and going through float32 are exact, so that most results
must be the same bits. A refusal (CalibrationError) is a result as well and must be the same on both sides.
"""

import json
from collections.abc import Callable
from dataclasses import astuple, is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp

from natix_lib.decisions import (
    Certificate,
    Policy,
    PredictionSets,
    TemperatureFit,
    ThresholdSweep,
    certify_selection,
    fit_prediction_sets,
    fit_temperature,
    log_odds,
    sweep_thresholds,
)
from natix_lib.decisions.cut import tune_cut
from natix_lib.decisions.policy import (
    ABSTAIN_ALL,
    ACCEPT_ALL,
    CALIBRATE_METHOD,
    CLASS_THRESHOLDS,
    MODES,
    SWEEP_METHOD,
    THRESHOLD,
)
from natix_lib.decisions.score import group_log_odds, softmax
from natix_lib.decisions.sets import SETS
from natix_lib.decisions.sweep import OBJECTIVES
from natix_lib.errors import CalibrationError

ALPHA, DELTA = 0.3, 0.3  # loose, so that few rows are certified at times
RANGES = (1, 16, 640)  # heavy ties; some; few, in 64ths
EXTREME = 30_000 * 64
STARTS = (None, 0.3, 1.0)  # of the chain
Case = tuple[np.ndarray, np.ndarray]
repeat = partial(settings, deadline=None, derandomize=True)  # the same cases in every run


@st.composite
def cases(draw: st.DrawFn, rows: int = 1, most: int = 40, ranges: tuple[int, ...] = RANGES) -> Case:
    """Logits (n, C) and labels, right in many rows; a class may be absent."""
    n, classes, size = draw(st.integers(rows, most)), draw(st.integers(2, 6)), draw(st.sampled_from(ranges))
    logits = draw(arrays(np.int64, (n, classes), elements=st.integers(-size, size))) / 64
    labels = draw(arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    right = draw(arrays(np.bool_, n))
    return logits, np.where(right, logits.argmax(axis=1), labels)


def outcome(fit: Callable[[], Any]) -> Any:
    """The result, or the refusal as its kind."""
    try:
        return fit()
    except CalibrationError:
        return CalibrationError


def same(left: Any, right: Any) -> bool:
    """Whether two results are the same bits, arrays and nested results included."""
    if is_dataclass(left) and not isinstance(left, type):
        return type(left) is type(right) and same(vars(left), vars(right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return bool(left == right)


def sweeps(logits: np.ndarray, labels: np.ndarray) -> list:
    """The sweep by every objective, or its refusal."""
    options: dict = {"max_risk": ALPHA, "min_coverage": 0.5}
    return [outcome(partial(sweep_thresholds, logits, labels, name, **options)) for name in OBJECTIVES]


def certificates(logits: np.ndarray, labels: np.ndarray, **options: Any) -> list[Certificate]:
    scores, errors = log_odds(logits), logits.argmax(axis=1) != labels
    return [certify_selection(scores, errors, ALPHA, DELTA, start=start, **options) for start in STARTS]


def sets(logits: np.ndarray, labels: np.ndarray, **options: Any) -> list[PredictionSets]:
    """On the rows whose prediction is more probable than not."""
    p, accepted = softmax(logits), log_odds(logits) > 0
    return [fit_prediction_sets(p, labels, accepted, ALPHA, DELTA, procedure=name, **options) for name in SETS]


def cut(logits: np.ndarray, labels: np.ndarray) -> Any:
    """The cut of the last class against all others."""
    positive = np.arange(logits.shape[1]) == logits.shape[1] - 1
    return outcome(lambda: tune_cut(group_log_odds(logits, positive), positive[labels]))


def everything(logits: np.ndarray, labels: np.ndarray) -> list:
    return [
        log_odds(logits),
        fit_temperature(logits, labels),
        sweeps(logits, labels),
        certificates(logits, labels),
        sets(logits, labels),
        cut(logits, labels),
    ]


def same_temperature(left: TemperatureFit, right: TemperatureFit) -> None:
    assert left.status == right.status
    assert left.temperature == pytest.approx(right.temperature, rel=1e-9)
    assert left.nll == pytest.approx(right.nll, rel=1e-12, abs=1e-12)


def same_sweeps(left: list, right: list, copies: int = 1) -> None:
    """The same thresholds and counts, `copies` times as many on the right; the curve up to rounding of its sums."""
    for one, other in zip(left, right, strict=True):
        if one is CalibrationError or other is CalibrationError:
            assert one is other
            continue
        assert one.threshold_logodds == other.threshold_logodds
        assert (one.n * copies, one.n_accepted * copies, one.n_errors * copies) == (
            other.n,
            other.n_accepted,
            other.n_errors,
        )
        assert one.f1_score == pytest.approx(other.f1_score, abs=1e-12)
        same_curves(one, other, copies)


def same_curves(one: ThresholdSweep, other: ThresholdSweep, copies: int) -> None:
    for name, values in vars(one.curve).items():
        copied = getattr(other.curve, name)
        if name == "accepted":
            assert (values * copies == copied).all()
        elif values is not None:
            assert values == pytest.approx(copied, abs=1e-12)


@repeat(max_examples=60)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(case: Case, random: Any) -> None:
    logits, labels = case
    order = np.array(random.sample(range(len(labels)), len(labels)))
    moved, names = logits[order], labels[order]
    assert same(log_odds(moved), log_odds(logits)[order])
    same_temperature(fit_temperature(logits, labels), fit_temperature(moved, names))
    same_sweeps(sweeps(logits, labels), sweeps(moved, names))
    assert same(certificates(logits, labels), certificates(moved, names))
    assert same(sets(logits, labels), sets(moved, names))
    assert same(cut(logits, labels), cut(moved, names))


@repeat(max_examples=60)
@given(cases(), st.data())
def test_a_whole_number_added_to_a_row_changes_no_bit(case: Case, data: st.DataObject) -> None:
    logits, labels = case
    added = data.draw(arrays(np.int64, (len(labels), 1), elements=st.integers(-1000, 1000)))
    assert same(everything(logits, labels), everything(logits + added, labels))


@repeat(max_examples=60)
@given(cases(), st.booleans())
def test_float32_and_the_layout_in_memory_change_no_bit(case: Case, by_columns: bool) -> None:
    logits, labels = case
    other = logits.astype(np.float32, order="F" if by_columns else "C")
    assert (other == logits).all()
    assert same(everything(logits, labels), everything(other, labels))


@repeat(max_examples=80)
@given(cases(), st.randoms(use_true_random=False))
def test_the_names_of_the_classes_change_nothing_where_the_prediction_is_unique(case: Case, random: Any) -> None:
    """Scores differ in the last bit, as sums over the classes run in another order."""
    logits, labels = case
    logits[np.arange(len(labels)), logits.argmax(axis=1)] += 1 / 64
    classes = logits.shape[1]
    order = np.array(random.sample(range(classes), classes))  # new column c is the old order[c]
    moved, names = logits[:, order], np.argsort(order)[labels]
    scores, others = log_odds(logits), log_odds(moved)
    assert scores == pytest.approx(others, abs=1e-12)
    same_temperature(fit_temperature(logits, labels), fit_temperature(moved, names))
    p, q, accepted = softmax(logits), softmax(moved), scores > 1e-9
    for name in SETS:
        before = fit_prediction_sets(p, labels, accepted, ALPHA, DELTA, procedure=name)
        after = fit_prediction_sets(q, names, others > 1e-9, ALPHA, DELTA, procedure=name)
        assert before.threshold == pytest.approx(after.threshold, abs=1e-12)
        assert (before.m, before.certified) == (after.m, after.certified)
    # Scores equal in the reals may be a bit apart in float64 on one side alone: another ranking. Ties must be of both.
    by_score = np.argsort(scores, kind="stable")
    steps, moves = np.diff(scores[by_score]), np.diff(others[by_score])
    assume((((steps == 0) & (moves == 0)) | ((steps > 1e-9) & (moves > 1e-9))).all())
    for one, other in zip(certificates(logits, labels), certificates(moved, names), strict=True):
        assert (one.certified, one.accepted, one.errors) == (other.certified, other.accepted, other.errors)
        assert one.threshold == pytest.approx(other.threshold, abs=1e-12)
    for one, other in zip(sweeps(logits, labels), sweeps(moved, names), strict=True):
        if one is CalibrationError or other is CalibrationError:
            assert one is other
            continue
        assert (one.n_accepted, one.n_errors) == (other.n_accepted, other.n_errors)
        assert one.f1_score == pytest.approx(other.f1_score, abs=1e-12)
        assert one.value == pytest.approx(other.value, abs=1e-12)
        assert [astuple(one.curve)[i] for i in (1, 2, 3)] == [pytest.approx(v) for v in astuple(other.curve)[1:4]]
        assert sorted(np.argsort(order)[one.absent_classes].tolist()) == other.absent_classes


@repeat(max_examples=60)
@given(cases())
def test_rows_given_twice_change_nothing_but_the_counts(case: Case) -> None:
    logits, labels = case
    twice, names, groups = logits.repeat(2, axis=0), labels.repeat(2), np.arange(len(labels)).repeat(2)
    same_temperature(fit_temperature(logits, labels), fit_temperature(twice, names, groups))
    same_sweeps(sweeps(logits, labels), sweeps(twice, names), copies=2)
    for one, other in zip(certificates(logits, labels), certificates(twice, names, groups=groups), strict=True):
        assert same(replace(one, unit="", reason=""), replace(other, unit="", reason=""))
    for once, again in zip(sets(logits, labels), sets(twice, names, groups=groups), strict=True):
        assert same(replace(once, unit="", reason=""), replace(again, unit="", reason=""))
    cuts = cut(logits, labels), cut(twice, names)
    if CalibrationError in cuts:
        assert cuts[0] is cuts[1]
    else:
        assert cuts[0].logodds == cuts[1].logodds and cuts[0].mcc == pytest.approx(cuts[1].mcc, abs=1e-12)


@repeat(max_examples=80)
@given(cases(ranges=(*RANGES, EXTREME)))
def test_scores_are_those_of_scipy_and_the_temperature_is_a_minimum(case: Case) -> None:
    logits, labels = case
    rows, top = np.arange(len(labels)), logits.argmax(axis=1)
    others = logits.copy()
    others[rows, top] = -np.inf
    assert log_odds(logits) == pytest.approx(logits[rows, top] - logsumexp(others, axis=1), rel=1e-12, abs=1e-9)

    def nll(temperature: float) -> float:
        z = logits / temperature
        return float((logsumexp(z, axis=1) - z[rows, labels]).mean())

    fit = fit_temperature(logits, labels)
    assert fit.nll == pytest.approx(nll(fit.temperature), rel=1e-9, abs=1e-9)
    assert fit.nll <= nll(1.0) * (1 + 1e-12) + 1e-12
    if fit.status == "ok":
        assert fit.nll <= min(nll(fit.temperature * factor) for factor in (0.9, 0.999, 1.001, 1.1)) + 1e-12


@repeat(max_examples=60)
@given(cases(ranges=(*RANGES, EXTREME)))
def test_every_policy_that_can_be_fitted_is_json_without_nan_and_applies_as_it_was_fitted(case: Case) -> None:
    logits, labels = case
    classes = tuple(f"c{i}" for i in range(logits.shape[1]))
    swept = [fit for fit in sweeps(logits, labels) if fit is not CalibrationError]
    found_cut = cut(logits, labels)
    fitted: list[tuple[Policy, int, int]] = []
    for fit in swept:
        mode = ACCEPT_ALL if fit.threshold_logodds is None else THRESHOLD
        tuned = None if found_cut is CalibrationError else found_cut.logodds
        policy = Policy(
            classes, classes[-1:], method=SWEEP_METHOD, mode=mode, threshold=fit.threshold_logodds, cut=tuned
        )
        fitted.append((policy, fit.n_accepted, fit.n_errors))
    temperature = fit_temperature(logits, labels).temperature
    for certificate, by_set in zip(certificates(logits, labels), sets(logits, labels) * 2, strict=False):
        threshold = None if certificate.threshold in (None, -np.inf) else certificate.threshold
        mode = ABSTAIN_ALL if not certificate.certified else ACCEPT_ALL if threshold is None else THRESHOLD
        policy = Policy(
            classes, mode=mode, threshold=threshold, temperature=temperature, sets_threshold=by_set.threshold
        )
        fitted.append((policy, certificate.accepted, certificate.errors))
    for policy, accepted, errors in fitted:
        text = json.dumps(policy.to_document(), allow_nan=False)
        assert Policy.from_document(json.loads(text)) == policy
        decisions = policy.apply(logits)
        assert decisions.accepted.sum() == accepted
        assert (decisions.prediction != labels)[decisions.accepted].sum() == errors
        assert np.isfinite(decisions.probabilities).all() and np.isfinite(decisions.score).all()
        assert decisions.score.min() >= 0 and decisions.score.max() <= 1


@repeat(max_examples=40)
@given(cases(most=1, ranges=(*RANGES, EXTREME)))
def test_one_row_is_scored_and_certifies_nothing(case: Case) -> None:
    logits, labels = case
    assert sweeps(logits, labels) == [CalibrationError] * len(OBJECTIVES)
    assert cut(logits, labels) is CalibrationError
    right = logits.argmax() == labels[0]
    highest = logits[0, labels[0]] == logits.max()
    expected = ("separable", "constant") if highest else ("ok", "worse_than_uniform", "clamped")
    assert fit_temperature(logits, labels).status in expected
    assert not any(certificate.certified for certificate in certificates(logits, labels))
    assert not any(certificate.certified for certificate in sets(logits, labels))
    for start in STARTS:  # where one right row is enough, one right row is certified
        certificate = certify_selection(log_odds(logits), [not right], 0.99, 0.5, start=start)
        assert certificate.certified == right and certificate.threshold == (-np.inf if right else None)


@repeat(max_examples=40)
@given(cases(rows=4))
def test_a_column_that_no_label_names_is_listed_and_changes_no_f1(case: Case) -> None:
    """A further class that is never predicted and whose share of the probability is 0 in float64."""
    logits, labels = case
    wide = np.column_stack([logits, np.full(len(labels), -2000.0)])
    assert same(log_odds(wide), log_odds(logits))
    for one, other in zip(sweeps(logits, labels)[:3], sweeps(wide, labels)[:3], strict=True):
        if one is CalibrationError or other is CalibrationError:
            assert one is other
            continue
        assert other.absent_classes == [*one.absent_classes, logits.shape[1]]
        assert (one.threshold_logodds, one.n_accepted) == (other.threshold_logodds, other.n_accepted)
        assert one.value == pytest.approx(other.value, abs=1e-12)
    assert same(certificates(logits, labels), certificates(wide, labels))
    assert same(sets(logits, labels), sets(wide, labels))


numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    names = tuple(draw(st.lists(st.text(min_size=1), min_size=2, max_size=6, unique=True)))
    method = draw(st.sampled_from((SWEEP_METHOD, CALIBRATE_METHOD)))
    swept = method == SWEEP_METHOD
    mode = draw(st.sampled_from((THRESHOLD, ACCEPT_ALL) if swept else MODES))
    return Policy(
        names,
        positive_classes=tuple(name for name in names if draw(st.booleans())),
        method=method,
        mode=mode,
        threshold=draw(numbers) if mode == THRESHOLD else None,
        class_thresholds=tuple(draw(numbers) for _ in names) if mode == CLASS_THRESHOLDS else None,
        temperature=1.0 if swept else draw(st.floats(min_value=0, exclude_min=True, allow_infinity=False)),
        cut=draw(st.none() | numbers),
        sets_threshold=None if swept else draw(st.none() | st.floats(0, 1)),
        bias=tuple(draw(numbers) for _ in names) if not swept and draw(st.booleans()) else None,
    )


@repeat(max_examples=60)
@given(cases(), st.data())
def test_a_policy_with_a_bias_decides_as_without_it_on_shifted_logits(case: Case, data: st.DataObject) -> None:
    logits, _ = case
    names = tuple(f"c{i}" for i in range(logits.shape[1]))
    bias = tuple(data.draw(st.integers(-400, 400)) / 64 for _ in names)
    plain = Policy(names, names[:1], mode=THRESHOLD, threshold=0.25, temperature=1.5, cut=0.5, sets_threshold=0.8)
    assert same(replace(plain, bias=bias).apply(logits), plain.apply(logits + np.array(bias)))


@pytest.mark.slow
@repeat(max_examples=300)
@given(policies())
def test_any_policy_is_read_back_bit_by_bit_from_json_without_nan(policy: Policy) -> None:
    reread = Policy.from_document(json.loads(json.dumps(policy.to_document(), allow_nan=False)))
    assert reread == policy
    assert repr(reread) == repr(policy)  # -0.0 equals 0.0 and is another number


@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize("classes", [2, 13, 100])
def test_the_runtime_decides_as_the_fit_did_for_a_row_alone_in_a_batch_and_in_any_order(
    classes: int, decimals: int
) -> None:
    """More rows than a block holds for 100 classes; float32 logits, as they are stored, and the same in float64."""
    generator = np.random.default_rng(classes)
    n = 700
    labels = generator.integers(0, classes, n)
    single = generator.normal(0, 1, (n, classes)).round(decimals).astype(np.float32)
    single[np.arange(n), labels] += np.float32(3)
    order = generator.permutation(n)
    names = tuple(map(str, range(classes)))
    swept = sweep_thresholds(single, labels)
    errors = single.argmax(axis=1) != labels
    certificate = certify_selection(log_odds(single), errors, 0.8 * errors.mean(), 0.2)
    assert (
        swept.threshold_logodds is not None and certificate.threshold is not None and np.isfinite(certificate.threshold)
    )
    temperature = fit_temperature(single, labels).temperature
    accepted = log_odds(single) > certificate.threshold
    by_set = fit_prediction_sets(softmax(single, temperature), labels, accepted, 0.05, 0.2)
    assert by_set.certified
    fitted = [
        (
            Policy(names, names[:1], method=SWEEP_METHOD, mode=THRESHOLD, threshold=swept.threshold_logodds),
            swept.n_accepted,
        ),
        (
            Policy(
                names,
                mode=THRESHOLD,
                threshold=certificate.threshold,
                temperature=temperature,
                sets_threshold=by_set.threshold,
            ),
            certificate.accepted,
        ),
    ]
    for policy, count in fitted:
        batch = policy.apply(single)
        assert batch.accepted.sum() == count and same(batch.confidence, log_odds(single))
        for values in (single, single.astype(np.float64)):
            assert same(batch, policy.apply(values))
            assert same(batch.take(order), policy.apply(values[order]))
            alone = [policy.apply(row) for row in values]
            for name in vars(batch):
                if getattr(batch, name) is not None:
                    assert same(getattr(batch, name), np.concatenate([getattr(one, name) for one in alone])), name
    assert batch.sets is not None
    label_scores = 1 - batch.probabilities[np.arange(n), labels]
    assert (label_scores[batch.accepted] > by_set.threshold).sum() == by_set.k
    assert (~batch.sets[np.arange(n), labels])[batch.accepted].sum() <= by_set.k


@pytest.mark.parametrize("true", [0.3, 3.0, 30.0])
def test_the_temperature_is_found_in_few_passes(true: float) -> None:
    """The series converges cubically; a step in the wrong direction leaves bisection alone, which takes dozens."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3 * max(true, 1), (2000, 5))
    labels = (logits / true + generator.gumbel(size=logits.shape)).argmax(axis=1)
    fit = fit_temperature(logits, labels)
    assert fit.status == "ok" and fit.passes <= 10


def test_a_slope_that_is_zero_but_for_rounding_has_no_finite_temperature() -> None:
    """Means of the rows less their labels' logits are .2/64 and -.2/64, so uniform probabilities are the best."""
    logits = np.array([[4, 3, 3, 3, 3], [2, 3, 3, 3, 3]]) / 64
    fit = fit_temperature(logits, [1, 1])
    assert (fit.status, fit.temperature) == ("worse_than_uniform", 1.0)
