"""What accepting the m most confident rows gives, for every m at which a threshold can stand.

Rows are sorted by falling score. Accepting is `score > threshold`, so rows of equal score are accepted together and
only the ends of tie groups are reachable.
"""

from dataclasses import dataclass

import numpy as np

from natix_lib.decisions.score import Bools, Floats, Ints


@dataclass(frozen=True)
class Ranking:
    """Rows by falling score.

    Attributes:
        order: Row numbers, most confident first, (n,).
        ends: Reachable numbers of accepted rows, rising, last is n, (g,).
        scores: Score of each tie group, falling, (g,).
        thresholds: The t at which exactly `ends` rows have score > t, -inf for all rows, (g,).
        errors: Errors among the accepted, (g,).
    """

    order: Ints
    ends: Ints
    scores: Floats
    thresholds: Floats
    errors: Ints


def rank(scores: Floats, errors: Bools) -> Ranking:
    """Rank rows by score."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True))
    levels = ordered[last]
    thresholds = np.append(levels[1:], -np.inf)
    return Ranking(order, last + 1, levels, thresholds, np.cumsum(errors[order], dtype=np.int64)[last])


def risk_coverage_areas(ranking: Ranking) -> tuple[float, float]:
    """AURC and AUGRC, errors of a tie group spread evenly over it.

    AURC is the mean selective risk over the n coverages; AUGRC the area under joint risk P(accepted and wrong) against
    coverage (Traub et al. 2024, arXiv 2407.01032).
    """
    n = int(ranking.ends[-1])
    expected = np.interp(np.arange(n + 1), np.append(0, ranking.ends), np.append(0, ranking.errors))
    aurc = float(np.mean(expected[1:] / np.arange(1, n + 1)))
    augrc = float(np.mean(0.5 * (expected[1:] + expected[:-1])) / n)
    return aurc, augrc
