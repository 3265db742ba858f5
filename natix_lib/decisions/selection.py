"""The acceptance rule with a finite-sample guarantee: risk of the accepted <= alpha with confidence 1 - delta.

`ltt`: fixed-sequence testing over ranks (Learn Then Test, arXiv 2110.01052). Four chains start at accepted counts
fixed before the errors are seen, each with delta/4, and walk towards more coverage while the binomial test passes;
starting from the confident end is the direction in which the test is most likely to pass. `sgr`: the binary search of
Geifman & El-Yaniv (2017), which keeps the best certified rank, not the last tried. Bounding the expected risk and
calling it a high-probability guarantee was rejected: in simulation it fails in a third of the trials.

Frames of one drive are not independent and void the guarantee, so with groups one row of each is drawn, by a fixed
seed, and the statement is about groups.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta, binom

from natix_lib.decisions.curve import Ranking, rank
from natix_lib.decisions.score import Ints
from natix_lib.errors import CalibrationError

CHAINS = 4
BLOCK = 4096  # ranks tested at once; a chain usually ends early


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
        unit: `image` or `group`.
        reason: Why nothing is certified; empty otherwise.
    """

    threshold: float | None
    certified: bool
    n: int
    accepted: int
    errors: int
    upper_bound: float | None
    unit: str
    reason: str


def upper_risk_bound(errors: int, accepted: int, delta: float) -> float:
    """Clopper-Pearson upper bound on the error rate of the accepted images.

    Args:
        errors: Wrong predictions among the accepted, 0 <= errors <= accepted.
        accepted: Accepted images, at least 1.
        delta: Probability that the bound is too low, in (0, 1).

    Returns:
        The bound in (0, 1]; 1.0 when every accepted prediction is wrong.

    Raises:
        CalibrationError: If an argument is outside its range.

    References:
        Clopper & Pearson (1934), Biometrika 26(4).
    """
    _require_open("delta", delta)
    if not 0 <= errors <= accepted or accepted < 1:
        raise CalibrationError(f"errors must be in 0..accepted and accepted at least 1, got {errors} of {accepted}")
    return 1.0 if errors == accepted else float(beta.ppf(1 - delta, errors + 1, accepted - errors))


def one_of_each_group(groups: ArrayLike, seed: int) -> Ints:
    """A row number of each group, drawn by `seed`, in rising order."""
    names = np.asarray(groups)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    _, first = np.unique(names[shuffled], return_index=True)
    return np.sort(shuffled[first]).astype(np.int64)


def certify_selection(
    scores: ArrayLike,
    errors: ArrayLike,
    alpha: float,
    delta: float,
    groups: ArrayLike | None = None,
    procedure: str = "ltt",
    seed: int = 0,
) -> Certificate:
    """The lowest threshold at which the risk of the accepted is certified.

    Args:
        scores: Confidence of each row, finite, (n,).
        errors: 1 where the prediction is wrong, (n,).
        alpha: Bound on the risk, in (0, 1).
        delta: Probability that the bound does not hold, in (0, 1).
        groups: Group of each row, (n,); None takes rows as independent.
        procedure: `ltt` or `sgr`.
        seed: Of the row drawn from each group.

    Returns:
        A certificate; not certified is an answer, with its reason, and no error.

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    _require_open("alpha", alpha)
    _require_open("delta", delta)
    s, e = np.asarray(scores, dtype=np.float64), np.asarray(errors)
    if s.ndim != 1 or not len(s) or e.shape != s.shape:
        raise CalibrationError(f"scores and errors must be of one length, at least 1, got {s.shape} and {e.shape}")
    if not np.isfinite(s).all():
        raise CalibrationError(f"scores must be finite, row {np.flatnonzero(~np.isfinite(s))[0]} is not")
    e = e.astype(np.bool_)
    if groups is not None:
        names = np.asarray(groups)
        if names.shape != s.shape:
            raise CalibrationError(f"groups must have the length of the scores, {len(s)}, got shape {names.shape}")
        rows = one_of_each_group(names, seed)
        s, e = s[rows], e[rows]
    if procedure not in ("ltt", "sgr"):
        raise CalibrationError(f"scrc procedure must be ltt or sgr, got {procedure!r}")
    ranking = rank(s, e)
    index, spent, needed = (_ltt if procedure == "ltt" else _sgr)(ranking, alpha, delta)
    n, unit = len(s), "image" if groups is None else "group"
    if index is None:
        if n < needed:
            reason = f"needs at least {needed} {unit}s at alpha {alpha:g}, delta {delta:g} ({procedure}), has {n}"
        else:
            first = int(np.searchsorted(ranking.ends, needed))
            reason = (
                f"no threshold is certified at alpha {alpha:g}, delta {delta:g} ({procedure}): of the "
                f"{ranking.ends[first]} most confident {unit}s {ranking.errors[first]} are wrong"
            )
        return Certificate(None, False, n, 0, 0, None, unit, reason)
    m, k = int(ranking.ends[index]), int(ranking.errors[index])
    bound = upper_risk_bound(k, m, spent)
    return Certificate(float(ranking.thresholds[index]), True, n, m, k, bound, unit, "")


def _require_open(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise CalibrationError(f"{name} must be in (0, 1), got {value:g}")


def _least_accepted(alpha: float, delta: float) -> int:
    """The fewest accepted rows that can be certified, all of them right: ln delta / ln(1 - alpha)."""
    return int(np.ceil(np.log(delta) / np.log1p(-alpha)))


def _ltt(ranking: Ranking, alpha: float, delta: float) -> tuple[int | None, float, int]:
    """Index of the largest certified tie-group end, the delta spent on its chain, and the least accepted count."""
    spent = delta / CHAINS
    n, needed = int(ranking.ends[-1]), _least_accepted(alpha, spent)
    best: int | None = None
    for start in (needed, n // 8, n // 4, n // 2):
        index = int(np.searchsorted(ranking.ends, max(start, 1)))
        while index < len(ranking.ends):
            block = slice(index, index + BLOCK)
            passed = np.asarray(binom.cdf(ranking.errors[block], ranking.ends[block], alpha)) <= spent
            run = len(passed) if passed.all() else int(passed.argmin())
            if run:
                best = max(best or 0, index + run - 1)
            if run < len(passed):
                break
            index += run
    return best, spent, needed


def _sgr(ranking: Ranking, alpha: float, delta: float) -> tuple[int | None, float, int]:
    """As `_ltt`, by binary search over the tie-group ends with delta shared among its steps."""
    steps = max(1, int(np.ceil(np.log2(len(ranking.ends) + 1))))
    spent = delta / steps
    low, high = 0, len(ranking.ends) - 1
    best: int | None = None
    while low <= high:
        middle = (low + high) // 2
        if binom.cdf(ranking.errors[middle], ranking.ends[middle], alpha) <= spent:
            best, low = max(best or 0, middle), middle + 1
        else:
            high = middle - 1
    return best, spent, _least_accepted(alpha, spent)
