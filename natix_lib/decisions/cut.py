"""The cut of a binary score: positive iff the log-odds of the positive classes are above it.

A consumer that rounds at 0.5 must round to the tuned decision, so the score is `sigmoid(log-odds - cut)`: monotone,
and 0.5 exactly at the cut. Rows nearer than `APART` in log-odds count as one: the score could not tell them apart.

The best of many cuts looks better than none on the rows that it was chosen on, and on few rows it can be far worse on
others: with 13 drawn classes the rounded score was right in 26 % of TEST and the label in 91 %. So a cut must earn its
place. `judge_cut` tunes on each half of the rows and looks at the other half, where nothing was chosen, at the rows
whose decision changes between 0.5 and the tuned cut. If tuning were worth nothing, such a row would be changed for the
worse with the probability at which the Matthews correlation of its half stays what it was; so few losses among the
changed rows must then be improbable. For accuracy that probability is a half, and the test McNemar's exact one. A group
bootstrap of the correlation's difference was rejected: three changed rows, all for the better, pass it (1/e^3 < .05).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr

from natix_lib.arrays import Bools, Floats
from natix_lib.decisions.draws import first_half, independent_rows
from natix_lib.decisions.matthews import binary_matthews
from natix_lib.decisions.score import check_mask, check_scores
from natix_lib.errors import CalibrationError

APART = 1e-12
LEVEL = 0.05  # the usual one-sided level: where tuning is worth nothing, at most so many cuts are kept


@dataclass(frozen=True)
class TunedCut:
    """A cut that was tuned: where it lies in log-odds, and the MCC that it reaches."""

    logodds: float
    mcc: float


@dataclass(frozen=True)
class CutTrial:
    """Whether tuning a cut pays on rows that it was not tuned on.

    Attributes:
        kept: Whether it does by more than chance.
        n: Rows looked at: images, or one image of each group.
        unit: What a row stands for, `image` or `group`.
        changed: Rows whose decision a cut tuned on the other half changes.
        worse: Those of them that it makes wrong.
        p_value: Probability of no more than `worse` if tuning were worth nothing.
    """

    kept: bool
    n: int
    unit: str
    changed: int
    worse: int
    p_value: float


def matthews(answer: Bools, truth: Bools) -> float:
    """Matthews correlation of two binary answers, (n,) each; 0 where one is constant."""
    return float(binary_matthews((answer & truth).sum(), truth.sum(), answer.sum(), len(truth)))


def tune_cut(positive_logodds: ArrayLike, is_positive: ArrayLike) -> TunedCut:
    """The cut with the best Matthews correlation; the one nearest to 0 breaks ties.

    Args:
        positive_logodds: Log-odds of the positive classes, finite, (n,).
        is_positive: Whether the label is positive, booleans or 0 and 1, (n,); both kinds are present.

    Returns:
        The cut, half way between two neighbouring rows.

    Raises:
        CalibrationError: If an argument breaks its rule, or all rows are of one kind or of one score.
    """
    values = check_scores("positive_logodds", positive_logodds)
    labels = check_mask("is_positive", is_positive, len(values))
    positives, n = int(labels.sum()), len(labels)
    if positives in (0, n):
        raise CalibrationError(f"a cut needs positive and negative labels, {positives} of {n} are positive")
    order = np.argsort(values, kind="stable")
    scores, truth = values[order], labels[order]
    below = np.flatnonzero(scores[1:] - scores[:-1] > APART) + 1  # rows at or below the cut
    if not len(below):
        raise CalibrationError("a cut needs scores that differ, all are equal")
    missed = np.cumsum(truth)[below - 1].astype(np.float64)
    answered, hit = (n - below).astype(np.float64), positives - missed
    mcc = binary_matthews(hit, positives, answered, n)
    lower, upper = scores[below - 1], scores[below]
    middle = lower + 0.5 * (upper - lower)
    cuts = np.where(middle < upper, middle, lower)  # the middle of two neighbouring floats may round to the upper
    ties = np.flatnonzero(mcc >= mcc.max() - 1e-12)
    best = ties[np.abs(cuts[ties]).argmin()]
    return TunedCut(float(cuts[best]), float(mcc[best]))


def judge_cut(positive_logodds: ArrayLike, is_positive: ArrayLike, groups: ArrayLike | None = None) -> CutTrial:
    """Whether a tuned cut beats 0.5 by more than chance on rows that it was not tuned on.

    Args:
        positive_logodds: Log-odds of the positive classes, finite, (n,).
        is_positive: Whether the label is positive, booleans or 0 and 1, (n,).
        groups: Group of each row, (n,), of which one row each is looked at; None takes rows as independent.

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    values = check_scores("positive_logodds", positive_logodds)
    truth = check_mask("is_positive", is_positive, len(values))
    rows, unit = independent_rows(groups, values, truth)
    values, truth = values[rows], truth[rows]
    half = first_half(None, values, truth)
    chances = np.ones(1)  # of so many losses in all
    changed = worse = 0
    for tuned, judged in ((half, ~half), (~half, half)):
        try:
            cut = tune_cut(values[tuned], truth[tuned]).logodds
        except CalibrationError:  # one kind of label, or one score: nothing is tuned and nothing changes
            continue
        lost, moved, indifferent = _losses(values[judged], truth[judged], cut)
        losses = np.diff(bdtr(np.arange(moved + 1.0), moved, indifferent), prepend=0.0) if moved else np.ones(1)
        chances = np.convolve(chances, losses)
        changed, worse = changed + moved, worse + lost
    p_value = min(float(chances[: worse + 1].sum()), 1.0)
    return CutTrial(p_value <= LEVEL, len(values), unit, changed, worse, p_value)


def _losses(values: Floats, truth: Bools, cut: float) -> tuple[int, int, float]:
    """Rows that a cut makes wrong, rows that it changes, and the share of losses at which the MCC stays the same."""
    if cut < 0:  # the mirror image, in which fewer rows are positive
        values, truth, cut = -values, ~truth, -cut
        before, after = values >= 0, values >= cut
    else:
        before, after = values > 0, values > cut
    moved = before & ~after
    changed, lost = int(moved.sum()), int((moved & truth).sum())
    n, positives, left = len(truth), float(truth.sum()), float(after.sum())
    spread = np.sqrt(left * (n - left) * positives * (n - positives))
    hits = (matthews(before, truth) * spread + left * positives) / n  # that give the same correlation after the cut
    indifferent = (float((before & truth).sum()) - hits) / max(changed, 1)
    return lost, changed, float(np.clip(indifferent, 0.0, 1.0))
