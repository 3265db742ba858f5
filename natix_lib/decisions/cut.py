"""The cut of a binary score: positive iff the log-odds of the positive classes are above it.

A consumer that rounds at 0.5 must round to the tuned decision, so the score is `sigmoid(log-odds - cut)`: monotone,
and 0.5 exactly at the cut. Rows nearer than `APART` in log-odds count as one: the score could not tell them apart.
"""

from dataclasses import dataclass

import numpy as np

from natix_lib.decisions.score import Bools, Floats
from natix_lib.errors import CalibrationError

APART = 1e-12


@dataclass(frozen=True)
class Cut:
    """A tuned cut: its place in log-odds, and the MCC that it reaches."""

    logodds: float
    mcc: float


def tune_cut(positive_logodds: Floats, is_positive: Bools) -> Cut:
    """The cut with the best Matthews correlation; the one nearest to 0 breaks ties.

    Args:
        positive_logodds: Log-odds of the positive classes, finite, (n,).
        is_positive: Whether the label is positive, (n,); both kinds are present.

    Returns:
        The cut, half way between two neighbouring rows.

    Raises:
        CalibrationError: If all rows are of one kind or of one score.
    """
    positives, n = int(is_positive.sum()), len(is_positive)
    if positives in (0, n):
        raise CalibrationError(f"a cut needs positive and negative labels, {positives} of {n} are positive")
    order = np.argsort(positive_logodds, kind="stable")
    scores, truth = positive_logodds[order], is_positive[order]
    below = np.flatnonzero(scores[1:] - scores[:-1] > APART) + 1  # rows at or below the cut
    if not len(below):
        raise CalibrationError("a cut needs scores that differ, all are equal")
    missed = np.cumsum(truth)[below - 1].astype(np.float64)
    said, hit = (n - below).astype(np.float64), positives - missed
    mcc = (hit * n - said * positives) / np.sqrt(said * below * float(positives) * (n - positives))
    lower, upper = scores[below - 1], scores[below]
    middle = lower + 0.5 * (upper - lower)
    cuts = np.where(middle < upper, middle, lower)  # the middle of two neighbouring floats may round to the upper
    ties = np.flatnonzero(mcc >= mcc.max() - 1e-12)
    best = ties[np.abs(cuts[ties]).argmin()]
    return Cut(float(cuts[best]), float(mcc[best]))
