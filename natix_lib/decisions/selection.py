"""The acceptance rule with a finite-sample guarantee: risk of the accepted <= alpha with confidence 1 - delta.

What is tested, and why it holds for any risk, stands in `band`: a simultaneous bound on the errors at all ranks, and
beside it, where other data say where to begin, a chain of tests from there. Bounding the expected risk and calling it a
high-probability guarantee was rejected: in simulation it fails in a third of the trials.

What a set must hold at least is plain arithmetic and stands beside the tests (`needed_independent`), so that what is
said before a run and what is certified in it cannot disagree.

Frames of one drive are not independent and void the guarantee, so with groups one row of each is drawn, by the hash of
the data (`draws`), and the statement is about groups.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from natix_lib.decisions.band import BAND_SHARE, band, chain, sharp_ranks
from natix_lib.decisions.binomial import least_accepted, require_open, upper_risk_bound
from natix_lib.decisions.curve import Ranking, rank
from natix_lib.decisions.draws import independent_rows
from natix_lib.decisions.score import check_mask, check_scores
from natix_lib.errors import CalibrationError

CAUTION = 1.25  # of the powers 1 to 2 the one that accepts most at 100 to 3,000 rows (benchmarks.power)
SMALLEST = 1e-9  # alpha that `certifiable_alpha` looks down to: 1e9 images and more


@dataclass(frozen=True)
class Certificate:
    """What is promised of the accepted.

    Attributes:
        threshold: Accept iff score > this; -inf accepts all, None when nothing is certified.
        certified: Whether the guarantee holds.
        n: Rows tested: images, or one image of each group.
        accepted: Accepted of the n rows.
        errors: Wrong among the accepted.
        upper_bound: Clopper-Pearson bound on the risk at the level of the test that was passed; None if nothing is
            certified.
        delta_spent: The level of that test, at most delta; of the first test where none was passed.
        unit: What a row stands for, `image` or `group`.
        reason: Why nothing is certified; empty otherwise.
    """

    threshold: float | None
    certified: bool
    n: int
    accepted: int
    errors: int
    upper_bound: float | None
    delta_spent: float
    unit: str
    reason: str


def certify_selection(
    scores: ArrayLike,
    errors: ArrayLike,
    alpha: float,
    delta: float,
    groups: ArrayLike | None = None,
    start: float | None = None,
) -> Certificate:
    """The lowest threshold at which the risk of the accepted is certified.

    Args:
        scores: Confidence of each row, finite, (n,).
        errors: Where the prediction is wrong, booleans or 0 and 1, (n,).
        alpha: Bound on the risk, in (0, 1).
        delta: Probability that the bound does not hold, in (0, 1).
        groups: Group of each row, (n,), of which one row each is tested; None takes rows as independent.
        start: Share of the rows, in (0, 1], at which a chain of tests begins, found on other data by `best_start`;
            None where there are none. A bad start costs coverage, never the guarantee.

    Returns:
        A certificate; not certified is an answer, with its reason, and no error.

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    require_open("alpha", alpha)
    require_open("delta", delta)
    if start is not None and not 0 < start <= 1:
        raise CalibrationError(f"start must be in (0, 1], got {start}")
    s = check_scores("scores", scores)
    e = check_mask("errors", errors, len(s))
    rows, unit = independent_rows(groups, s, e)
    ranking, n = rank(s[rows], e[rows]), len(s[rows])
    index, spent = _largest(ranking, alpha, delta, start)
    if index is None:
        needed = needed_independent(alpha, delta, start is not None)
        reason = f"at alpha {alpha:g}, delta {delta:g}"
        if n < needed:
            reason = f"needs at least {needed} {unit}s {reason}, has {n}"
        else:
            reason = f"no threshold is certified {reason}: {_nearest(ranking, alpha, spent, unit)}"
        return Certificate(None, False, n, 0, 0, None, spent, unit, reason)
    m, k = int(ranking.ends[index]), int(ranking.errors[index])
    return Certificate(float(ranking.thresholds[index]), True, n, m, k, upper_risk_bound(k, m, spent), spent, unit, "")


def best_start(
    scores: ArrayLike, errors: ArrayLike, alpha: float, delta: float, n: int, groups: ArrayLike | None = None
) -> float:
    """Where a chain over n rows had best begin, by rows that the chain does not test.

    At each sharp rank these rows let expect some errors, and what is allowed lies some standard deviations above them,
    its margin: deviations of the errors to come and of those seen here, which tell as much as they are many. The start
    is where the chance to pass, to the power of `CAUTION`, times the coverage that is reached from there before the
    margin is gone, is largest. The widest margin alone was tried: before a stretch of errors it takes the near side,
    .40 of coverage where .58 can be had, and is no better elsewhere; the bare chance trusts few rows too much; what
    the band would accept if the chain fails changes nothing.

    Args:
        scores: Confidence of each row, finite, (N,).
        errors: Where the prediction is wrong, (N,).
        alpha: Bound on the risk, in (0, 1).
        delta: As in `certify_selection`.
        n: Rows, or groups, that the chain will test, at least 1.
        groups: Group of each of the N rows; None takes them as independent.

    Returns:
        A share in (0, 1].

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    require_open("alpha", alpha)
    require_open("delta", delta)
    s = check_scores("scores", scores)
    e = check_mask("errors", errors, len(s))
    rows, _ = independent_rows(groups, s, e)
    ranking = rank(s[rows], e[rows])
    coverage = ranking.ends / ranking.ends[-1]
    sharp, allowed = sharp_ranks(n, alpha, _of_chain(delta))
    if not len(sharp):
        return 1.0
    risk = (ranking.errors + 0.5) / (ranking.ends + 1)  # not 0, of which no deviation is known
    at = np.interp(sharp / n, coverage, risk)
    deviation = np.sqrt(sharp * at * (1 - at) * (1 + n / int(ranking.ends[-1])))
    margin = (allowed + 0.5 - sharp * at) / deviation
    ends = np.flatnonzero(np.append(margin[1:] <= 0, True))  # where a chain will stop, if it comes there
    reached = sharp[ends[np.searchsorted(ends, np.arange(len(sharp)))]]
    return float(sharp[(ndtr(margin) ** CAUTION * reached).argmax()] / n)


def needed_independent(alpha: float, delta: float, has_start: bool = False, spare_half: bool = False) -> int:
    """The independent images, or groups, from which on any number of them is certified when none is wrong.

    Args:
        alpha: Bound on the risk, in (0, 1).
        delta: Probability that the bound does not hold, in (0, 1).
        has_start: Whether `certify_selection` is told where to start.
        spare_half: Whether half of them is left unseen, for prediction sets.

    Returns:
        A number, at least 1, at which `certify_selection` certifies distinct scores without an error, and one less does
        not.

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    require_open("alpha", alpha)
    require_open("delta", delta)
    needed = least_accepted(alpha, _of_chain(delta) if has_start else delta)
    return 2 * needed - 1 if spare_half else needed  # of an odd number the first half is the larger


def certifiable_alpha(n: int, delta: float, has_start: bool = False, spare_half: bool = False) -> float:
    """The smallest alpha for which `needed_independent` is at most n, in (0, 1), to a millionth of itself.

    Args:
        n: Independent images, or groups, at least 1.
        delta: As in `needed_independent`, and so the others.
        has_start: Whether a chain is told where to start.
        spare_half: Whether half is left unseen.

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    if n < 1:
        raise CalibrationError(f"n must be at least 1, got {n}")
    low, high = SMALLEST, 1 - SMALLEST
    while high - low > 1e-6 * low:
        middle = (low * high) ** 0.5
        if needed_independent(middle, delta, has_start, spare_half) <= n:
            high = middle
        else:
            low = middle
    return high


def _of_chain(delta: float) -> float:
    return (1 - BAND_SHARE) * delta


def _largest(ranking: Ranking, alpha: float, delta: float, start: float | None) -> tuple[int | None, float]:
    """Index of the largest end that band or chain certify, None if neither does, and the level of its test."""
    if start is None:
        index, level = band(ranking, alpha, delta)
        return index, level or delta
    index, level = band(ranking, alpha, BAND_SHARE * delta)
    chained = chain(ranking, alpha, _of_chain(delta), max(1, round(start * int(ranking.ends[-1]))))
    if index is not None and (chained is None or index > chained):
        return index, level
    return chained, _of_chain(delta)


def _nearest(ranking: Ranking, alpha: float, level: float, unit: str) -> str:
    """The sharp rank that misses the test of a level by the fewest errors, in words."""
    sharp, allowed = sharp_ranks(int(ranking.ends[-1]), alpha, level)
    index = np.searchsorted(ranking.ends, sharp)
    nearest = int((ranking.errors[index] - allowed).argmin())
    wrong = int(ranking.errors[index[nearest]])
    return (
        f"of the {ranking.ends[index[nearest]]} most confident {unit}s {wrong} {'is' if wrong == 1 else 'are'} wrong, "
        f"and {allowed[nearest]} may be"
    )
