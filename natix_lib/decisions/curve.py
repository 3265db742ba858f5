"""What accepting the m most confident rows gives, for every m at which a threshold can stand.

Rows are sorted by falling score. Accepting is `score > threshold`, so rows of equal score are accepted together and
only the ends of tie groups are reachable.
"""

from dataclasses import dataclass

import numpy as np

from natix_lib.decisions.score import Bools, Floats, Ints

TABLE = tuple(round(0.10 + 0.05 * i, 2) for i in range(17))  # the first trainer's thresholds, as probabilities
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


def rank(scores: Floats, errors: Bools) -> Ranking:
    """Rank rows by score. Only values are sorted, of all rows and of the wrong ones: no row has to keep its place."""
    falling = np.sort(scores)[::-1]
    last = _tie_ends(falling)
    levels = falling[last]
    wrong = np.sort(scores[errors])
    counts = len(wrong) - np.searchsorted(wrong, levels, side="left")
    return Ranking(last + 1, levels, np.append(levels[1:], -np.inf), counts)


def order_and_ends(scores: Floats) -> tuple[Ints, Ints]:
    """Row numbers by falling score, (n,), and the last position of each tie group in them, (g,)."""
    order = np.argsort(-scores)
    return order, _tie_ends(scores[order])


def _tie_ends(falling: Floats) -> Ints:
    return np.flatnonzero(np.append(falling[1:] < falling[:-1], True))


def thin(count: int, points: int = PLOTTED) -> Ints:
    """At most `points` of `count` positions, evenly, ends kept."""
    return np.unique(np.linspace(0, count - 1, min(count, points)).round().astype(np.int64))


def risk_coverage_areas(ends: Ints, errors: Ints) -> tuple[float, float]:
    """AURC and AUGRC, errors of a tie group spread evenly over it.

    AURC is the mean selective risk over the n coverages; AUGRC the area under joint risk P(accepted and wrong) against
    coverage (Traub et al. 2024, arXiv 2407.01032).

    Args:
        ends: Reachable numbers of accepted rows, rising to n, (g,).
        errors: Errors among them, (g,).
    """
    n = int(ends[-1])
    counts = np.arange(1, n + 1)
    expected = np.interp(counts, ends, errors) if len(ends) < n else errors.astype(np.float64)
    if len(ends) < n and ends[0] > 1:
        expected[: ends[0]] = counts[: ends[0]] * (errors[0] / ends[0])
    augrc = (expected.sum() - 0.5 * expected[-1]) / n**2
    return float(np.mean(expected / counts)), float(augrc)
