"""Promises at a deployment prior: rows drawn by class, the bias of each class, and what holds under label shift.

A pool of groups of frames is the exact law p(x | y) of each class, so what is true of a rule at any prior is counted.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from natix_lib.decisions.calibration import Calibration, Rows, Terms, calibrate
from natix_lib.decisions.deployment import (
    check_shares,
    drawn_at_prior,
    fit_deployment,
    take,
    terms_at_prior,
    with_positives,
)
from natix_lib.decisions.draws import MISFIT, rows_at_prior
from natix_lib.decisions.joint import FALSE_ALARMS, MISSES, OVERALL
from natix_lib.decisions.policy import Policy
from natix_lib.errors import CalibrationError

NAMES = ("none", "roadwork")
POSITIVE = np.array([False, True])
POOL, FRAMES, DELTA = 4_000, 3, 0.1
ALONE = Terms(alpha=0.05, delta=DELTA)
JOINT = Terms(alpha=0.05, delta=DELTA, misses=0.4, false_alarms=0.25)
UP, DOWN = SHIFTS = ((0.05, 0.3), (0.25, 0.03))  # of the share of positives, from the data to use


@cache
def pool(share: float) -> np.ndarray:
    """Logits of groups by class (2, POOL, FRAMES, 2), 1.5 times the log-odds at a share of positives."""
    generator = np.random.default_rng(5)
    centre = np.array([-2.0, 2.0])[:, None, None] + 1.7 * generator.normal(size=(2, POOL, 1))
    ratio = centre + generator.normal(size=(2, POOL, FRAMES))
    logits = np.zeros((2, POOL, FRAMES, 2))
    logits[..., 1] = 1.5 * (ratio + np.log(share / (1 - share)))
    return logits


def sampled(share: float, groups: int, frames: int, generator: np.random.Generator) -> Rows:
    labels = (generator.random(groups) < share).astype(np.int64)
    logits = pool(share)[labels, generator.integers(0, POOL, groups), :frames]
    number = np.repeat(np.arange(groups), frames)
    return Rows(logits.reshape(-1, 2), np.repeat(labels, frames), number if frames > 1 else None)


def fitted(rows: Rows, select: Rows, use: float, terms: Terms) -> tuple[Calibration, np.ndarray]:
    """The rule for a share of positives in use, and its bias."""
    deployment = fit_deployment({"roadwork": use}, NAMES, select)
    given = []
    for each, role in ((rows, "VAL_CALIB"), (select, "VAL_SELECT")):
        drawn = take(each, drawn_at_prior(each, NAMES, deployment, role))
        given.append(deployment.shifted(with_positives(drawn, each, POSITIVE, deployment)))
    return calibrate(given[0], terms_at_prior(terms), given[1], POSITIVE), deployment.bias


def false_promises(result: Calibration, bias: np.ndarray, shares: tuple[float, float], frames: int) -> list[str]:
    """What is certified and not true of the pool at the share in use."""
    share, use = shares
    thresholds = None if result.class_thresholds is None else tuple(result.class_thresholds)
    policy = Policy(
        NAMES, NAMES[1:], result.mode, result.threshold, class_thresholds=thresholds, bias=tuple(bias.tolist())
    )
    decisions = policy.apply(pool(share)[:, :, :frames].reshape(-1, 2))
    accepted, called = decisions.accepted.reshape(2, -1), decisions.prediction.reshape(2, -1) == 1
    published, cleared = (accepted & called).mean(axis=1), (accepted & ~called).mean(axis=1)
    prior = np.array([1 - use, use])
    wrong = prior @ [published[0], cleared[1]]
    risks = {
        OVERALL: wrong / max(prior @ (published + cleared), 1e-12),
        MISSES: cleared[1],
        FALSE_ALARMS: use and prior[0] * published[0] / max(prior @ published, 1e-12),
    }
    promises = [(kept.asked.kind, kept.asked.alpha, kept.certified) for kept in result.promises]
    whole = [(OVERALL, ALONE.alpha, result.certificate.certified)]
    return [kind for kind, alpha, certified in promises or whole if certified and risks[kind] > alpha]


def violations(shares: tuple[float, float], terms: Terms, frames: int, trials: int, shifted: bool = True) -> int:
    count = 0
    for trial in range(trials):
        generator = np.random.default_rng([trial, frames])
        rows, select = (sampled(shares[0], 1_500, frames, generator) for _ in range(2))
        if shifted:
            result, bias = fitted(rows, select, shares[1], terms)
        else:
            result, bias = calibrate(rows, terms, select, POSITIVE), np.zeros(2)
        count += bool(false_promises(result, bias, shares, frames))
    return count


@pytest.mark.parametrize("frames", [1, pytest.param(FRAMES, marks=pytest.mark.slow)])
@pytest.mark.parametrize("terms", [ALONE, pytest.param(JOINT, marks=pytest.mark.slow)], ids=["alone", "joint"])
@pytest.mark.parametrize("shares", [UP, pytest.param(DOWN, marks=pytest.mark.slow)], ids=["up", "down"])
def test_what_is_certified_holds_in_use(shares: tuple[float, float], terms: Terms, frames: int) -> None:
    assert violations(shares, terms, frames, 200) <= binom.ppf(0.9999, 200, DELTA)


@pytest.mark.long
@pytest.mark.parametrize("terms", [ALONE, JOINT], ids=["alone", "joint"])
def test_what_is_certified_holds_in_use_in_2000_trials(terms: Terms) -> None:
    assert violations(UP, terms, 1, 2000) <= binom.ppf(0.9999, 2000, DELTA)


@pytest.mark.parametrize("terms", [ALONE, JOINT], ids=["alone", "joint"])
def test_what_is_certified_of_the_data_as_they_are_does_not_hold_in_use(terms: Terms) -> None:
    assert violations(UP, terms, 1, 20, shifted=False) >= 18


def test_down_from_rich_data_a_rule_is_certified_that_covers_more() -> None:
    generator = np.random.default_rng(0)
    rows, select = (sampled(DOWN[0], 1_500, 1, generator) for _ in range(2))
    result, _ = fitted(rows, select, DOWN[1], replace(ALONE, alpha=0.02))
    assert result.certificate.certified and result.certificate.accepted > 0.9 * result.certificate.n
    assert calibrate(rows, replace(ALONE, alpha=0.02), select, POSITIVE).certificate.accepted < 0.75 * 1_500


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_the_bias_puts_exact_log_odds_of_one_prior_to_another(factor: float) -> None:
    generator = np.random.default_rng(1)
    labels = (generator.random(40_000) < 0.25).astype(np.int64)
    ratio = generator.normal(4 * (labels - 0.5), 2.0) + np.log(0.25 / 0.75)  # normal classes, so these are log-odds
    select = Rows(factor * np.stack([np.zeros(40_000), ratio], axis=1), labels)
    deployment = fit_deployment({"roadwork": 0.03}, NAMES, select)
    assert np.diff(deployment.bias)[0] == pytest.approx(factor * np.log(0.03 / 0.97 * 0.75 / 0.25), rel=0.03)
    assert deployment.bias.sum() == pytest.approx(0)


def test_what_the_shares_leave_goes_to_the_other_classes_as_they_are() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    select = Rows(np.random.default_rng(0).normal(size=(100, 3)) + 2 * np.eye(3)[labels], labels)
    prior = fit_deployment({"b": 0.1}, ("a", "b", "c"), select).prior
    assert prior == pytest.approx([0.9 * 50 / 70, 0.1, 0.9 * 20 / 70])
    whole = fit_deployment({"c": 0.2, "b": 0.1, "a": 0.7}, ("a", "b", "c"), select).prior
    assert whole == pytest.approx([0.7, 0.1, 0.2])


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"works": 0.1}, "prior must name classes of none, roadwork, got 'works'"),
        ({"roadwork": 0.0}, r"prior of roadwork must be in \(0, 1\), got 0.0"),
        ({"roadwork": 0.1, "none": 0.8}, "prior must sum to 1 where it names all classes, got 0.9"),
    ],
)
def test_shares_that_are_no_prior_are_refused(shares: dict[str, float], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        check_shares(shares, NAMES)


def test_a_class_without_an_image_is_refused_by_name() -> None:
    rows = sampled(0.3, 200, 1, np.random.default_rng(0))
    deployment = fit_deployment({"roadwork": 0.1}, NAMES, rows)
    nothing = take(rows, np.flatnonzero(np.asarray(rows.labels) == 0))
    with pytest.raises(CalibrationError, match="an independent image of every class in VAL_CALIB, roadwork has none"):
        drawn_at_prior(nothing, NAMES, deployment, "VAL_CALIB")
    with pytest.raises(CalibrationError, match="an independent image of every class in VAL_SELECT, roadwork has none"):
        fit_deployment({"roadwork": 0.1}, NAMES, nothing)


def test_misses_count_all_positives_and_the_rest_the_rows_at_the_prior() -> None:
    generator = np.random.default_rng(3)
    rows, select = (sampled(DOWN[0], 1_500, FRAMES, generator) for _ in range(2))
    result, _ = fitted(rows, select, DOWN[1], JOINT)
    positives = int(np.asarray(rows.labels)[::FRAMES].sum())
    n = {kept.asked.kind: kept.n for kept in result.promises}
    assert n[MISSES] == positives > 300 > n[FALSE_ALARMS]
    assert n[OVERALL] == result.certificate.n < 1_500 and result.certificate.unit == "group"


def test_the_half_for_prediction_sets_tests_nothing_else() -> None:
    generator = np.random.default_rng(3)
    rows, select = (sampled(DOWN[0], 1_500, 1, generator) for _ in range(2))
    result, _ = fitted(rows, select, DOWN[1], replace(JOINT, spare_half=True))
    assert max(kept.n for kept in result.promises) <= result.seen.sum() < result.seen.size


def test_one_row_of_each_group_is_drawn_and_none_twice() -> None:
    rows = sampled(0.3, 400, FRAMES, np.random.default_rng(0))
    deployment = fit_deployment({"roadwork": 0.2}, NAMES, rows)
    drawn = drawn_at_prior(rows, NAMES, deployment, "VAL_CALIB")
    groups = np.asarray(rows.groups)[drawn]
    assert len(np.unique(groups)) == len(groups) and (np.diff(drawn) > 0).all()


def test_the_drawn_rows_do_not_depend_on_the_order_of_the_rows() -> None:
    generator = np.random.default_rng(0)
    labels, content = generator.integers(0, 3, 500), generator.normal(size=500)
    prior = np.array([0.5, 0.3, 0.2])
    order = generator.permutation(500)
    one, other = rows_at_prior(labels, prior, content), rows_at_prior(labels[order], prior, content[order])
    assert np.array_equal(one, np.sort(order[other]))


def test_the_drawn_rows_are_an_iid_sample_at_the_prior() -> None:
    """Their classes are binomial, and those of a class a hypergeometric draw, also where rows hold equal values."""
    labels, prior = np.repeat([0, 1], [60, 40]), np.array([0.8, 0.2])
    positives, wrong = [], []
    for trial in range(2_000):
        generator = np.random.default_rng(trial)
        error = np.zeros(100)
        error[generator.choice(60, 15, replace=False)] = 1
        drawn = rows_at_prior(labels, prior, error, generator.random(100) * (labels == 1))
        positives.append(int(labels[drawn].sum()))
        wrong.append(float(error[drawn][labels[drawn] == 0].mean()))
    m = len(drawn)
    fits = np.arange(max(m - 60, 0), 41)
    law = binom.pmf(fits, m, 0.2) / binom.pmf(fits, m, 0.2).sum()
    mean, variance = law @ fits, law @ fits**2 - (law @ fits) ** 2
    assert np.mean(positives) == pytest.approx(mean, abs=4 * np.sqrt(variance / 2_000))
    assert np.var(positives) == pytest.approx(variance, rel=0.15)
    spread = np.mean([0.25 * 0.75 / (m - k) * (60 - (m - k)) / 59 for k in positives])  # of a hypergeometric share
    assert np.mean(wrong) == pytest.approx(0.25, abs=4 * np.sqrt(spread / 2_000))
    assert np.var(wrong) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize(("counts", "prior"), [((60, 40), (0.8, 0.2)), ((900, 30), (0.75, 0.25)), ((9, 5), (0.5, 0.5))])
def test_as_many_rows_are_drawn_as_hardly_ever_exceed_the_counts(counts: tuple[int, int], prior: tuple) -> None:
    labels = np.repeat([0, 1], counts)
    m = len(rows_at_prior(labels, np.array(prior), np.arange(len(labels))))

    def beyond(size: int) -> float:
        return float(sum(binom.sf(n, size, p) for n, p in zip(counts, prior, strict=True)))

    assert beyond(m) <= MISFIT < beyond(m + 1)


def test_all_rows_of_one_class_are_drawn_where_it_has_the_whole_prior() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    assert rows_at_prior(labels, np.array([0.0, 1.0]), np.arange(5)).tolist() == [1, 2, 4]


def test_draws_that_do_not_fit_are_paid_for_in_delta() -> None:
    assert terms_at_prior(ALONE) == replace(ALONE, delta=DELTA * (1 - MISFIT))
