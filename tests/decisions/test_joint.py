"""Promises that are asked for together: of all errors, of misses, of false alarms, of each class.

A pool of rows is the exact distribution, so what is true of a rule is counted and not estimated. A trial is a violation
when any promise that was certified is false in the pool.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import binom

from natix_lib.decisions.calibration import Rows, Terms, calibrate
from natix_lib.decisions.joint import (
    FALSE_ALARMS,
    MISSES,
    OF_CLASS,
    OVERALL,
    Asked,
    Joint,
    Outcome,
    certify_jointly,
    offsets,
)
from natix_lib.decisions.policy import Policy
from natix_lib.decisions.score import predictions_and_log_odds
from natix_lib.errors import CalibrationError

POOL = 40_000
DELTA = 0.1
RARE, HALF, TIES, THREE = CELLS = ("5 % positive", "half positive", "heavy ties", "three classes, two of them positive")
BINARY = (Asked(OVERALL, 0.05), Asked(MISSES, 0.2), Asked(FALSE_ALARMS, 0.15))
CLASSES = (Asked(OVERALL, 0.1), Asked(MISSES, 0.2), *(Asked(OF_CLASS, 0.15, c) for c in range(3)))


class Drawn(NamedTuple):
    """A distribution, or rows of it."""

    logits: np.ndarray
    labels: np.ndarray
    positive: np.ndarray

    def take(self, rows: np.ndarray) -> "Drawn":
        return Drawn(self.logits[rows], self.labels[rows], self.positive)

    def outcome(self, groups: np.ndarray | None = None) -> Outcome:
        predicted, scores = predictions_and_log_odds(self.logits)
        return Outcome(scores, predicted, self.labels, self.positive, groups)


@cache
def pool(cell: str) -> Drawn:
    generator = np.random.default_rng(CELLS.index(cell))
    prior = {RARE: (0.95, 0.05), HALF: (0.5, 0.5), TIES: (0.8, 0.2), THREE: (0.6, 0.3, 0.1)}[cell]
    labels = generator.choice(len(prior), POOL, p=prior)
    logits = generator.normal(size=(POOL, len(prior))) + 1.8 * np.eye(len(prior))[labels] + np.log(prior) / 1.8
    if cell == TIES:
        logits = np.round(logits)
    return Drawn(logits * 1.8, labels, np.arange(len(prior)) > 0)


@cache
def scored_pool(cell: str) -> Outcome:
    return pool(cell).outcome()


def asked_of(cell: str) -> Sequence[Asked]:
    return CLASSES if cell == THREE else BINARY


def truths(cell: str, thresholds: np.ndarray | None) -> list[bool]:
    """Of each promise whether it is true in the pool."""
    rows, result = scored_pool(cell), []
    accepted = np.zeros(POOL, dtype=bool) if thresholds is None else rows.scores > thresholds[rows.predicted]
    called, truth = rows.positive[rows.predicted], rows.positive[rows.labels]
    for each in asked_of(cell):
        among, wrong = {
            OVERALL: (accepted, rows.predicted != rows.labels),
            MISSES: (truth, accepted & ~called),
            FALSE_ALARMS: (accepted & called, ~truth),
            OF_CLASS: (accepted & (rows.predicted == each.of_class), rows.predicted != rows.labels),
        }[each.kind]
        result.append(not among.any() or bool((wrong & among).sum() <= each.alpha * among.sum()))
    return result


def fitted(cell: str, n: int, trial: int, selected: bool = True) -> Joint:
    generator = np.random.default_rng([n, trial])
    rows, other = (pool(cell).take(generator.integers(0, POOL, n)) for _ in range(2))
    asked = asked_of(cell)
    offset = offsets(other.outcome(), asked, DELTA) if selected else np.zeros(len(rows.positive))
    return certify_jointly(rows.outcome(), asked, DELTA, offset, empirical=True)


def violations(cell: str, n: int, trials: int, selected: bool = True) -> int:
    count = 0
    for trial in range(trials):
        joint = fitted(cell, n, trial, selected)
        true = truths(cell, joint.thresholds)
        count += any(kept.certified and not holds for kept, holds in zip(joint.kept, true, strict=True))
    return count


@pytest.mark.parametrize("n", [300, *(pytest.param(n, marks=pytest.mark.slow) for n in (1000, 3000))])
@pytest.mark.parametrize("cell", CELLS)
def test_all_that_is_certified_holds_together(cell: str, n: int) -> None:
    assert violations(cell, n, 200) <= binom.ppf(0.9999, 200, DELTA)


@pytest.mark.parametrize("cell", [RARE, pytest.param(THREE, marks=pytest.mark.slow)])
def test_it_holds_without_val_select_too(cell: str) -> None:
    assert violations(cell, 1000, 200, selected=False) <= binom.ppf(0.9999, 200, DELTA)


@pytest.mark.long
@pytest.mark.parametrize(("cell", "n"), [*((cell, 300) for cell in CELLS), (RARE, 1000)])
def test_all_that_is_certified_holds_together_in_2000_trials(cell: str, n: int) -> None:
    assert violations(cell, n, 2000) <= binom.ppf(0.9999, 2000, DELTA)


@pytest.mark.parametrize("cell", [RARE, HALF, THREE])
def test_each_promise_that_is_kept_by_luck_alone_is_false_too_often(cell: str) -> None:
    """The naive rule takes the lowest u at which the rows keep to every bound."""
    broken = 0
    for trial in range(100):
        generator = np.random.default_rng([7, trial])
        rows = pool(cell).take(generator.integers(0, POOL, 1000)).outcome()
        best = None
        for u in np.quantile(rows.scores, np.linspace(0.99, 0, 100)):
            accepted = rows.scores > u
            kept = []
            for each in asked_of(cell):
                among, wrong = rows.spoken_of(each)
                of = among if each.kind == MISSES else among & accepted
                kept.append((wrong & among & accepted).sum() <= each.alpha * of.sum())
            best = u if all(kept) else best
        thresholds = None if best is None else np.full(rows.positive.shape, best)
        broken += not all(truths(cell, thresholds))
    assert broken > binom.ppf(0.9999, 100, DELTA)


@pytest.mark.parametrize("cell", CELLS)
def test_on_many_rows_every_promise_is_certified_and_much_is_accepted(cell: str) -> None:
    joint = fitted(cell, 20_000, 0)
    rows = pool(cell).outcome()
    assert all(kept.certified for kept in joint.kept) and joint.thresholds is not None
    assert (rows.scores > joint.thresholds[rows.predicted]).mean() > 0.5


@pytest.mark.parametrize("seed", range(3))
def test_two_thresholds_bound_misses_where_one_for_both_classes_cannot_beside_false_alarms(seed: int) -> None:
    asked = (Asked(OVERALL, 0.05), Asked(MISSES, 0.05), Asked(FALSE_ALARMS, 0.3))
    rows, other = (
        pool(RARE).take(np.random.default_rng([seed, i]).integers(0, POOL, 10_000)).outcome() for i in (0, 1)
    )
    one = certify_jointly(rows, asked, DELTA, np.zeros(2))
    two = certify_jointly(rows, asked, DELTA, offsets(other, asked, DELTA))
    assert all(kept.certified for kept in two.kept)
    assert not one.kept[1].certified or 5 * one.kept[2].m < two.kept[2].m  # misses, or next to nothing is published


@pytest.mark.slow
def test_near_duplicates_void_the_promises_unless_groups_are_told() -> None:
    """Twenty frames of each of 100 drives, alike but for the last digits."""
    broken = told = 0
    for trial in range(100):
        generator = np.random.default_rng([3, trial])
        drawn = pool(HALF).take(generator.integers(0, POOL, 100).repeat(20))
        moved = Drawn(drawn.logits + generator.normal(0, 1e-6, drawn.logits.shape), drawn.labels, drawn.positive)
        for groups in (None, np.arange(100).repeat(20)):
            joint = certify_jointly(moved.outcome(groups), BINARY, DELTA, np.zeros(2))
            true = truths(HALF, joint.thresholds)
            false = any(kept.certified and not holds for kept, holds in zip(joint.kept, true, strict=True))
            broken, told = broken + (false and groups is None), told + (false and groups is not None)
    assert told <= binom.ppf(0.9999, 100, DELTA) < broken


def test_misses_are_an_order_statistic_of_the_positives() -> None:
    """Of 100 positives 4 may be cleared at .1 and a third of .1: P(Binomial(100, .1) <= 4) = .024, <= 5 = .058."""
    positives = np.arange(100) / 100
    scores = np.concatenate([positives, positives + 0.005])  # all predicted negative, true ones and false ones
    labels = np.repeat([1, 0], 100)
    rows = Outcome(scores, np.zeros(200, dtype=np.int64), labels, np.array([False, True]))
    joint = certify_jointly(rows, [Asked(OVERALL, 0.9), Asked(MISSES, 0.1), Asked(FALSE_ALARMS, 0.5)], 0.1, np.zeros(2))
    overall, misses, alarms = joint.kept
    assert (misses.m, misses.k, misses.certified) == (100, 4, True)
    assert (overall.m, overall.k, overall.certified) == (9, 4, True)
    assert (alarms.n, alarms.certified, alarms.reason) == (
        0, False, "needs at least 5 images that it speaks of at alpha 0.5, delta 0.0333, has 0",
    )  # fmt: skip


def test_what_cannot_hold_together_is_named_and_the_rest_holds() -> None:
    """All errors are rare only where nearly all is accepted, and then every positive is cleared."""
    labels = np.concatenate([np.ones(60), np.zeros(3000)]).astype(np.int64)
    scores = np.concatenate([np.full(60, 9.0), np.linspace(0, 8, 3000)])
    rows = Outcome(scores, np.zeros(3060, dtype=np.int64), labels, np.array([False, True]))
    joint = certify_jointly(rows, [Asked(OVERALL, 0.05), Asked(MISSES, 0.1)], 0.1, np.zeros(2))
    overall, misses = joint.kept
    assert overall.certified and not misses.certified and misses.m == misses.k == 60
    assert misses.reason == "no threshold is certified at alpha 0.1, delta 0.05"


def rows_of(cell: str, n: int, seed: int) -> Rows:
    drawn = pool(cell).take(np.random.default_rng(seed).integers(0, POOL, n))
    return Rows(drawn.logits, drawn.labels)


def test_a_policy_accepts_exactly_the_rows_that_were_certified() -> None:
    rows, other = rows_of(THREE, 3000, 1), rows_of(THREE, 3000, 2)
    positive = pool(THREE).positive
    result = calibrate(rows, Terms(0.1, 0.1, misses=0.2, per_class=0.15), other, positive)
    assert result.mode == "class_thresholds" and result.class_thresholds is not None
    policy = Policy(("a", "b", "c"), ("b", "c"), "class_thresholds", class_thresholds=tuple(result.class_thresholds))
    again = Policy.from_document(policy.to_document())
    assert again == policy
    decisions = again.apply(np.asarray(rows.logits))
    assert decisions.accepted.sum() == result.promises[0].m == result.certificate.accepted
    kinds = [(kept.asked.kind, kept.asked.of_class) for kept in result.promises]
    assert kinds == [(OVERALL, None), (MISSES, None), (OF_CLASS, 0), (OF_CLASS, 1), (OF_CLASS, 2)]


def test_a_class_that_is_never_predicted_can_still_be_cleared_safely() -> None:
    """A rare class that the argmax never takes: one threshold promises all errors, and nothing of its misses."""
    generator = np.random.default_rng(0)
    labels = (generator.random(4000) < 0.05).astype(np.int64)
    margin = generator.normal(6, 1, 4000) - 3 * labels
    rows = Rows(np.stack([margin, np.zeros(4000)], axis=1), labels)
    alone = calibrate(rows, Terms(0.05, 0.1))
    assert alone.certificate.certified and not alone.promises
    with pytest.raises(CalibrationError, match="constant prediction: the model says class 0 .* most are of class 1"):
        calibrate(Rows(rows.logits, 1 - labels), Terms(0.05, 0.1))
    result = calibrate(rows, Terms(0.05, 0.1, misses=0.1), None, np.array([False, True]))
    assert result.mode == "class_thresholds" and all(kept.certified for kept in result.promises)
    assert result.promises[0].m > 3000


@pytest.mark.parametrize(("on_infeasible", "mode"), [("empirical", "class_thresholds"), ("abstain", "abstain_all")])
def test_what_follows_when_a_promise_cannot_be_kept_is_what_was_asked(on_infeasible: str, mode: str) -> None:
    rows, positive = rows_of(RARE, 300, 0), pool(RARE).positive
    terms = Terms(0.1, 0.1, on_infeasible, misses=0.02)
    assert calibrate(rows, terms, None, positive).mode == mode
    with pytest.raises(CalibrationError, match="misses cannot be promised: needs at least 149 images that it speaks"):
        calibrate(rows, Terms(0.1, 0.1, "fail", misses=0.02), None, positive)


def test_misses_need_a_positive_class() -> None:
    with pytest.raises(CalibrationError, match="misses and false_alarms must be 1 where no class is positive"):
        calibrate(rows_of(RARE, 300, 0), Terms(0.1, 0.1, misses=0.2))
