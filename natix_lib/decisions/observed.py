"""What the accepted rows of VAL_CALIB show beside what is promised of them: misses, false alarms, large groups.

A bound on all errors hides the ones that matter: with 5 % of the accepted wrong and few positives, a quarter of them
may be accepted as negative. And a promise about groups says nothing of images where large groups err more, a long drive
through a roadwork, say. Both are counted here with intervals over whole groups; neither is a guarantee.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_lib.arrays import Bools, Ints
from natix_lib.decisions.intervals import LEAST_GROUPS, group_weights, share_interval
from natix_lib.decisions.score import check_groups

CONFIDENCE = 0.95
LEVEL = 0.05  # of the resamples may say the opposite before large groups are said to err more


@dataclass(frozen=True)
class Share:
    """A share of rows with its 95 % interval over groups, all None where there is no row.

    Attributes:
        n: Rows.
        k: Those that count.
        value: k / n.
        low: Lower end.
        high: Upper end.
    """

    n: int
    k: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Observed:
    """Counts over the rows that a rule was fitted on.

    Attributes:
        risk: Of the accepted rows, those whose prediction is wrong.
        group_risk: The same share within each group, averaged over groups; None where nothing is accepted.
        large_groups_err_more: Whether rows err more than groups do, by more than resampled groups explain.
        missed: Of the true positives, those accepted as negative; None without positive classes.
        false_alarms: Of those accepted as positive, the negatives; None without positive classes.
    """

    risk: Share
    group_risk: float | None
    large_groups_err_more: bool
    missed: Share | None
    false_alarms: Share | None


def observe(
    prediction: Ints,
    labels: Ints,
    accepted: Bools,
    positive: Bools,
    groups: ArrayLike | None,
    resamples: int,
) -> Observed:
    """Count what a rule accepts.

    Args:
        prediction: Predicted class of each row, (n,).
        labels: True class of each row, (n,).
        accepted: Which rows are accepted, (n,).
        positive: Which classes are positive, (C,); none or all of them leave misses and false alarms out.
        groups: Group of each row, (n,); None takes each row as one.
        resamples: Of groups, to tell whether large ones err more.

    Raises:
        CalibrationError: If `groups` breaks its rule.
    """
    group = check_groups(np.arange(len(labels)) if groups is None else groups, len(labels))
    wrong = prediction != labels
    truth, called = positive[labels], positive[prediction]
    binary = bool(positive.any() and not positive.all())
    risk_of_groups, larger = _by_group(wrong[accepted], group[accepted], resamples) if accepted.any() else (None, False)
    return Observed(
        risk=share(wrong, accepted, group),
        group_risk=risk_of_groups,
        large_groups_err_more=larger,
        missed=share(accepted & ~called, truth, group) if binary else None,
        false_alarms=share(~truth, accepted & called, group) if binary else None,
    )


def share(hits: Bools, among: Bools, groups: NDArray[np.generic]) -> Share:
    """How many of the rows `among` are `hits`, all (n,)."""
    n, k = int(among.sum()), int((hits & among).sum())
    if not n:
        return Share(0, 0, None, None, None)
    _, number = np.unique(groups[among], return_inverse=True)
    low, high = share_interval(np.bincount(number, hits[among]), np.bincount(number), CONFIDENCE)
    return Share(n, k, k / n, low, high)


def _by_group(wrong: Bools, groups: NDArray[np.generic], resamples: int) -> tuple[float, bool]:
    """Mean over groups of the share that is wrong, and whether the share of rows is larger by more than chance."""
    number, drawn = group_weights(groups, resamples, seed=0)
    sizes = np.bincount(number).astype(np.float64)
    errors = np.bincount(number, wrong)
    rates = errors / sizes
    if len(sizes) < LEAST_GROUPS:
        return float(rates.mean()), False
    differences = (drawn @ errors) / (drawn @ sizes) - (drawn @ rates) / len(sizes)
    return float(rates.mean()), bool(np.quantile(differences, LEVEL) > 1e-12)
