"""The acceptance rule with a finite-sample guarantee: risk of the accepted <= alpha with confidence 1 - delta.

`ltt`: fixed-sequence testing over ranks (Learn Then Test, arXiv 2110.01052). Four chains start at accepted counts
fixed before the errors are seen, each with delta/4, and walk towards more coverage while the binomial test passes;
starting from the confident end is the direction in which the test is most likely to pass. The chain tests every rank,
but computes few: the errors that m rows may hold never become fewer as m grows, so all ranks up to the next error too
many pass with it. `sgr`: the binary search of Geifman & El-Yaniv (2017), which keeps the best certified rank, not the
last tried. `grid`: thresholds fixed before VAL_CALIB is seen, each with delta/J; unlike a chain it finds a good
threshold behind a bad one. Bounding the expected risk and calling it a high-probability guarantee was rejected: in
simulation it fails in a third of the trials.

What a set must hold at least is plain arithmetic, and each procedure has it beside its tests (`Procedure.needed`), so
that what is said before a run and what is certified in it cannot disagree.

Frames of one drive are not independent and void the guarantee, so with groups one row of each is drawn, by the hash of
the data (`draws`), and the statement is about groups.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.decisions.binomial import is_certified, least_accepted, most_errors, require_open, upper_risk_bound
from natix_lib.decisions.curve import TABLE, Ranking, rank
from natix_lib.decisions.draws import independent_rows
from natix_lib.decisions.score import check_mask, check_scores, log_odds_at
from natix_lib.errors import CalibrationError

CHAINS = 4
GRID = (*TABLE, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Probabilities that `grid` tries unless told others: those of the table, and finer ones at the confident end."""

Chosen = tuple[int | None, float]  # index into the ranking, or None; the delta spent on a test
SMALLEST = 1e-9  # alpha that `certifiable_alpha` looks down to: 1e9 images and more


@dataclass(frozen=True)
class Procedure:
    """How a threshold is certified.

    Attributes:
        choose: Of a ranking, the thresholds of `grid`, alpha and delta: the index of the tie group that is certified.
        needed: Of alpha, delta and the number of those thresholds: the independent rows from which on any number is
            certified when none is wrong and no two scores are equal.
    """

    choose: Callable[[Ranking, list[float], float, float], Chosen]
    needed: Callable[[float, float, int], int]


@dataclass(frozen=True)
class Certificate:
    """What is promised of the accepted.

    Attributes:
        threshold: Accept iff score > this; -inf accepts all, None when nothing is certified.
        certified: Whether the guarantee holds.
        n: Rows tested: images, or one image of each group.
        accepted: Accepted of the n rows.
        errors: Wrong among the accepted.
        upper_bound: Clopper-Pearson bound on the risk at the confidence spent on this test; None if nothing is
            certified.
        delta_spent: The share of delta that each test may use.
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
    procedure: str = "ltt",
    grid: ArrayLike | None = None,
) -> Certificate:
    """The lowest threshold at which the risk of the accepted is certified.

    Args:
        scores: Confidence of each row, finite, (n,).
        errors: Where the prediction is wrong, booleans or 0 and 1, (n,).
        alpha: Bound on the risk, in (0, 1).
        delta: Probability that the bound does not hold, in (0, 1).
        groups: Group of each row, (n,), of which one row each is tested; None takes rows as independent.
        procedure: Name of the procedure, one of `PROCEDURES`.
        grid: J thresholds on the score that `grid` tests, chosen without these rows; None takes the log-odds of `GRID`.

    Returns:
        A certificate; not certified is an answer, with its reason, and no error.

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    chosen = _procedure(procedure, alpha, delta)
    s = check_scores("scores", scores)
    e = check_mask("errors", errors, len(s))
    rows, unit = independent_rows(groups, s, e)
    s, e = s[rows], e[rows]
    ranking = rank(s, e)
    thresholds = _thresholds(grid)
    index, spent = chosen.choose(ranking, thresholds, alpha, delta)
    n = len(s)
    if index is None:
        terms = f"at alpha {alpha:g}, delta {delta:g} ({procedure})"
        reason = _reason(
            ranking, chosen.needed(alpha, delta, len(thresholds)), least_accepted(alpha, spent), terms, unit
        )
        return Certificate(None, False, n, 0, 0, None, spent, unit, reason)
    m, k = int(ranking.ends[index]), int(ranking.errors[index])
    threshold = float(ranking.thresholds[index])
    if procedure == "grid":  # the fixed threshold itself, not the next row's score
        threshold = float(min(t for t in thresholds if threshold <= t < ranking.scores[index]))
    return Certificate(threshold, True, n, m, k, upper_risk_bound(k, m, spent), spent, unit, "")


def needed_independent(
    alpha: float, delta: float, procedure: str = "ltt", grid: ArrayLike | None = None, spare_half: bool = False
) -> int:
    """The independent images, or groups, from which on any number of them is certified when none is wrong.

    Args:
        alpha: Bound on the risk, in (0, 1).
        delta: Probability that the bound does not hold, in (0, 1).
        procedure: Name of the procedure, one of `PROCEDURES`.
        grid: Thresholds of `grid`, as in `certify_selection`; the lowest must accept all of them.
        spare_half: Whether half of them is left unseen, for prediction sets.

    Returns:
        A number, at least 1, at which `certify_selection` certifies distinct scores without an error, and one less does
        not.

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    needed = _procedure(procedure, alpha, delta).needed(alpha, delta, len(_thresholds(grid)))
    return 2 * needed - 1 if spare_half else needed  # of an odd number the first half is the larger


def certifiable_alpha(
    n: int, delta: float, procedure: str = "ltt", grid: ArrayLike | None = None, spare_half: bool = False
) -> float:
    """The smallest alpha for which `needed_independent` is at most n, in (0, 1), to a millionth of itself.

    Args:
        n: Independent images, or groups, at least 1.
        delta: As in `needed_independent`, and so the others.
        procedure: Name of the procedure.
        grid: Thresholds of `grid`.
        spare_half: Whether half is left unseen.

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    if n < 1:
        raise CalibrationError(f"n must be at least 1, got {n}")
    low, high = SMALLEST, 1 - SMALLEST
    while high - low > 1e-6 * low:
        middle = (low * high) ** 0.5
        if needed_independent(middle, delta, procedure, grid, spare_half) <= n:
            high = middle
        else:
            low = middle
    return high


def _procedure(name: str, alpha: float, delta: float) -> Procedure:
    """The procedure of that name, once what it is to certify is checked."""
    require_open("alpha", alpha)
    require_open("delta", delta)
    if name not in PROCEDURES:
        raise CalibrationError(f"procedure must be one of {', '.join(PROCEDURES)}, got {name!r}")
    return PROCEDURES[name]


def _reason(ranking: Ranking, needed: int, least: int, terms: str, unit: str) -> str:
    """Why nothing is certified, when `needed` rows would be needed and `least` is the first that a test lets pass."""
    n = int(ranking.ends[-1])
    if n < needed:
        return f"needs at least {needed} {unit}s {terms}, has {n}"
    first = int(np.searchsorted(ranking.ends, least))
    wrong = int(ranking.errors[first])
    return (
        f"no threshold is certified {terms}: of the "
        f"{ranking.ends[first]} most confident {unit}s {wrong} {'is' if wrong == 1 else 'are'} wrong"
    )


def _ltt(ranking: Ranking, _: list[float], alpha: float, delta: float) -> Chosen:
    """Index of the largest certified tie-group end, and the delta spent on each chain."""
    spent = delta / CHAINS
    n, needed = int(ranking.ends[-1]), least_accepted(alpha, spent)
    best: int | None = None
    for start in (needed, n // 8, n // 4, n // 2):
        index = int(np.searchsorted(ranking.ends, max(start, 1)))
        while index < len(ranking.ends):
            allowed = most_errors(int(ranking.ends[index]), alpha, spent)
            if ranking.errors[index] > allowed:
                break
            passed = int(np.searchsorted(ranking.errors, allowed, side="right")) - 1
            best = max(best or 0, passed)
            index = passed + 1
    return best, spent


def _sgr(ranking: Ranking, _: list[float], alpha: float, delta: float) -> Chosen:
    """As `_ltt`, by binary search over the tie-group ends with delta shared among its steps."""
    spent = delta / _steps(len(ranking.ends))
    low, high = 0, len(ranking.ends) - 1
    best: int | None = None
    while low <= high:
        middle = (low + high) // 2
        if is_certified(int(ranking.errors[middle]), int(ranking.ends[middle]), alpha, spent):
            best, low = max(best or 0, middle), middle + 1
        else:
            high = middle - 1
    return best, spent


def _steps(ends: int) -> int:
    """The most ends that a binary search over so many looks at, at least 1: log2(ends + 1), rounded up."""
    return ends.bit_length()


def _needed_by_sgr(alpha: float, delta: float, _: int) -> int:
    """The search looks first at the middle of n rows and must find it certified: fewer rows are harder to certify.

    A number of rows calls for another by the steps that it takes; from one that is large enough, the calls fall to the
    number from which on all suffice.
    """

    def called_for(n: int) -> int:
        return 2 * least_accepted(alpha, delta / _steps(n)) - 1

    n = 2
    while called_for(n) > n:
        n *= 2
    while called_for(n) < n:
        n = called_for(n)
    return n


def _thresholds(grid: ArrayLike | None) -> list[float]:
    if grid is None:
        return [-np.inf, *map(log_odds_at, GRID)]
    values = np.asarray(grid)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iuf" or np.isnan(values).any():
        raise CalibrationError(f"grid must hold thresholds, at least one and none NaN, got {grid}")
    return sorted(set(values.astype(np.float64).tolist()))


def _grid(ranking: Ranking, thresholds: list[float], alpha: float, delta: float) -> Chosen:
    """Index of the largest accepted count among the certified thresholds, each tested with delta/J."""
    spent = delta / len(thresholds)
    accepted = np.searchsorted(-ranking.scores, [-t for t in thresholds], side="left")  # tie groups above each
    passed = [
        int(count) - 1
        for count in accepted
        if count and is_certified(int(ranking.errors[count - 1]), int(ranking.ends[count - 1]), alpha, spent)
    ]
    return max(passed, default=None), spent


PROCEDURES = {
    "ltt": Procedure(_ltt, lambda alpha, delta, _: least_accepted(alpha, delta / CHAINS)),
    "sgr": Procedure(_sgr, _needed_by_sgr),
    "grid": Procedure(_grid, lambda alpha, delta, thresholds: least_accepted(alpha, delta / thresholds)),
}
"""The procedures by their names."""
