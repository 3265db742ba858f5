"""What accepting the m most confident rows gives, for every m at which a threshold can stand.

Rows are sorted by falling score. Accepting is `score > threshold`, so rows of equal score are accepted together and
only the ends of tie groups are reachable.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.arrays import Floats, Ints
from natix_lib.decisions.score import check_mask, check_scores
from natix_lib.errors import CalibrationError

TABLE = tuple(
    round(0.10 + 0.05 * i, 2) for i in range(17)
)  # the probabilities at which a table shows a curve: .10 to .90
PLOTTED = 100  # points of a curve that a person looks at


@dataclass(frozen=True)
class Ranking:
    """Reachable numbers of accepted rows, rising, and what goes with each, all (g,).

    Attributes:
        ends: Accepted rows m; the last is n.
        scores: Score of the tie group that ends there, falling.
        thresholds: The t at which exactly m rows have score > t: the score of the next group, -inf for all rows.
        errors: Errors among the m.
    """

    ends: Ints
    scores: Floats
    thresholds: Floats
    errors: Ints


def rank(scores: ArrayLike, errors: ArrayLike) -> Ranking:
    """Rank rows by score. Only values are sorted, of all rows and of the wrong ones: no row has to keep its place.

    Args:
        scores: Finite, (n,).
        errors: Where the prediction is wrong, booleans or 0 and 1, (n,).

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    values = check_scores("scores", scores)
    falling = np.sort(values)[::-1]
    last = _tie_ends(falling)
    levels = falling[last]
    wrong = np.sort(values[check_mask("errors", errors, len(values))])
    counts = len(wrong) - np.searchsorted(wrong, levels, side="left")
    return Ranking(last + 1, levels, np.append(levels[1:], -np.inf), counts)


def order_and_ends(scores: ArrayLike) -> tuple[Ints, Ints]:
    """Row numbers by falling score, (n,), and the last position of each tie group in them, (g,)."""
    values = check_scores("scores", scores)
    order = np.argsort(-values)
    return order, _tie_ends(values[order])


def _tie_ends(falling: Floats) -> Ints:
    return np.flatnonzero(np.append(falling[1:] < falling[:-1], True))


def thin(ends: Ints, accepted: int = 0, points: int = PLOTTED) -> Ints:
    """Positions of a curve to plot: at most `points`, evenly, its ends kept, and where `accepted` rows are accepted.

    Args:
        ends: Rows accepted at each position, rising, (g,).
        accepted: Rows that the policy accepts; 0 for none, which is no point of the curve.
        points: The most points that the plot may have.
    """
    even = np.linspace(0, len(ends) - 1, min(len(ends), points)).round().astype(np.int64)
    return np.union1d(even, np.flatnonzero(ends == accepted))


def risk_coverage_areas(ends: ArrayLike, errors: ArrayLike) -> tuple[float, float]:
    """AURC and AUGRC, errors of a tie group spread evenly over it.

    AURC is the mean selective risk over the n coverages; AUGRC the area under joint risk P(accepted and wrong) against
    coverage (Traub et al. 2024, arXiv 2407.01032).

    Args:
        ends: Reachable numbers of accepted rows, rising to n, (g,).
        errors: Errors among them, never falling, (g,).

    Raises:
        CalibrationError: If they are no such counts.
    """
    ends = check_scores("ends", ends)
    errors = check_scores("errors", errors, len(ends))
    steps, more = np.diff(ends, prepend=0), np.diff(errors, prepend=0)
    if (ends != np.floor(ends)).any() or (steps < 1).any() or (more < 0).any() or (more > steps).any():
        raise CalibrationError("ends must be counts that rise, and errors counts of rows among them")
    n = int(ends[-1])
    counts = np.arange(1, n + 1)
    expected = np.interp(counts, ends, errors) if len(ends) < n else errors
    if len(ends) < n and ends[0] > 1:
        first = int(ends[0])
        expected[:first] = counts[:first] * (errors[0] / first)
    augrc = (expected.sum() - 0.5 * expected[-1]) / n**2
    return float(np.mean(expected / counts)), float(augrc)
