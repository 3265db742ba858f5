"""How good probabilities are: NLL, Brier, calibration error with its null, and intervals by resampling groups.

A percentile interval on the expected calibration error is invalid: the estimate is biased upwards, a perfectly
calibrated model of 200 images shows .05. Instead its null is drawn: labels resampled from the model's own confidences
(consistency resampling, Bröcker & Smith 2007), which says how much error a calibrated model would show.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_lib.decisions.score import Bools, Floats, Ints

BINS = 15


@dataclass(frozen=True)
class EceTest:
    """Expected calibration error beside what a perfectly calibrated model would show.

    Attributes:
        value: The error, in [0, 1].
        null_mean: Mean under perfect calibration.
        null_high: 95 % quantile under perfect calibration.
        p_value: Share of the null at or above `value`.
        reliability: The bins that hold rows, by rising confidence: `n`, mean `confidence`, `accuracy`, and `null_low`
            and `null_high`, between which the accuracy of a calibrated model lies in 95 % of the resamples.
    """

    value: float
    null_mean: float
    null_high: float
    p_value: float
    reliability: list[dict[str, float]]


def brier(probabilities: Floats, labels: Ints) -> Floats:
    """Brier score of each row, in [0, 2], (n,): squared distance to the one-hot label."""
    own = probabilities[np.arange(len(labels)), labels]
    result: Floats = (probabilities**2).sum(axis=1) - 2 * own + 1
    return result


def ece(confidence: Floats, correct: ArrayLike, bins: int = BINS, equal_mass: bool = False) -> float:
    """Expected calibration error of confidences in [0, 1], over bins of equal width or of equal mass."""
    which = _bins(confidence, bins, equal_mass)
    gap = np.bincount(which, np.asarray(correct, dtype=np.float64) - confidence, bins)
    return float(np.abs(gap).sum() / len(confidence))


def classwise_ece(probabilities: Floats, labels: Ints, bins: int = BINS) -> float:
    """Mean over classes of the equal-width ECE of the class's probability (Kull et al. 2019)."""
    columns = range(probabilities.shape[1])
    return float(np.mean([ece(probabilities[:, c], labels == c, bins) for c in columns]))


def ece_with_null(
    confidence: Floats, correct: Bools, resamples: int = 1000, seed: int = 0, bins: int = BINS
) -> EceTest:
    """Equal-width ECE, its consistency-resampling null, and the reliability diagram with its null band."""
    generator = np.random.default_rng(seed)
    n = len(confidence)
    which = _bins(confidence, bins, False)
    held = np.bincount(which, minlength=bins)
    expected, hits = np.bincount(which, confidence, bins), np.bincount(which, correct, bins)
    value = float(np.abs(hits - expected).sum() / n)
    draws = np.empty((resamples, bins))
    for i in range(resamples):
        draws[i] = np.bincount(which[generator.random(n) < confidence], minlength=bins)
    null = np.abs(draws - expected).sum(axis=1) / n
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    reliability = [
        {
            "n": int(held[b]),
            "confidence": float(expected[b] / held[b]),
            "accuracy": float(hits[b] / held[b]),
            "null_low": float(low[b] / held[b]),
            "null_high": float(high[b] / held[b]),
        }
        for b in np.flatnonzero(held)
    ]
    p_value = float((1 + (null >= value).sum()) / (1 + resamples))
    return EceTest(value, float(null.mean()), float(np.quantile(null, 0.95)), p_value, reliability)


def group_weights(groups: ArrayLike, resamples: int, seed: int) -> tuple[Ints, NDArray[np.int64]]:
    """Bootstrap draws of whole groups.

    Args:
        groups: Group of each row, (n,).
        resamples: Draws B.
        seed: Of the draws.

    Returns:
        The group number of each row (n,), and how often each of the G groups is drawn, (B, G).
    """
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    draws = np.empty((resamples, len(names)), dtype=np.int64)
    for i, counts in enumerate(_drawn(len(names), resamples, seed)):
        draws[i] = counts
    return number.astype(np.int64), draws


def bootstrap_means(
    values: Floats, groups: ArrayLike, resamples: int, seed: int, confidence: float = 0.95
) -> list[tuple[float, float]]:
    """Percentile interval of the mean of each column of `values` (n, K), whole groups resampled.

    The columns share their draws, and one draw at a time is held: a million groups need no table of a thousand times
    as many counts.
    """
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    columns = [np.bincount(number, column) for column in values.T]
    table = np.stack([*columns, np.bincount(number).astype(np.float64)])
    sums = np.stack([table @ counts for counts in _drawn(len(names), resamples, seed)])
    low, high = np.quantile(sums[:, :-1] / sums[:, -1:], [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _drawn(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each of `count` groups is drawn, for each resample."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, count, count), minlength=count)


def _bins(confidence: Floats, bins: int, equal_mass: bool) -> Ints:
    if equal_mass:
        position = np.empty(len(confidence), dtype=np.int64)
        position[np.argsort(confidence, kind="stable")] = np.arange(len(confidence))
        return position * bins // len(confidence)
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)
