"""How good probabilities are: NLL, Brier, and calibration error with its null.

A percentile interval on the expected calibration error is invalid: the estimate is biased upwards, a perfectly
calibrated model of 200 images shows .05. Instead its null is drawn: labels resampled from the model's own confidences
(consistency resampling, Bröcker & Smith 2007), which says how much error a calibrated model would show.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.arrays import Floats, Ints
from natix_lib.decisions.score import check_confidence, check_labels, check_mask, check_probabilities

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


def brier(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """Brier score of each row, in [0, 2], (n,): squared distance to the one-hot label.

    Raises:
        CalibrationError: If probabilities (n, C) or labels (n,) break their rules.
    """
    p = check_probabilities(probabilities)
    y = check_labels(labels, *p.shape)
    result: Floats = (p**2).sum(axis=1) - 2 * p[np.arange(len(y)), y] + 1
    return result


def ece(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS, equal_mass: bool = False) -> float:
    """Expected calibration error of confidences in [0, 1], over bins of equal width or of equal mass.

    Raises:
        CalibrationError: If confidence (n,) or correct (n,), booleans or 0 and 1, break their rules.
    """
    p = check_confidence(confidence)
    right = check_mask("correct", correct, len(p))
    gap = np.bincount(_bins(p, bins, equal_mass), right - p, bins)
    return float(np.abs(gap).sum() / len(p))


def classwise_ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """Mean over classes of the equal-width ECE of the class's probability (Kull et al. 2019); raises as `brier`."""
    p = check_probabilities(probabilities)
    y = check_labels(labels, *p.shape)
    return float(np.mean([ece(p[:, c], y == c, bins) for c in range(p.shape[1])]))


def ece_with_null(
    confidence: ArrayLike, correct: ArrayLike, resamples: int = 1000, seed: int = 0, bins: int = BINS
) -> EceTest:
    """Equal-width ECE, its consistency-resampling null, and the reliability diagram with its null band.

    Raises:
        CalibrationError: As `ece`.
    """
    generator = np.random.default_rng(seed)
    p = check_confidence(confidence)
    right = check_mask("correct", correct, len(p))
    n = len(p)
    which = _bins(p, bins, False)
    held = np.bincount(which, minlength=bins)
    expected, hits = np.bincount(which, p, bins), np.bincount(which, right, bins)
    value = float(np.abs(hits - expected).sum() / n)
    draws = np.empty((resamples, bins))
    for i in range(resamples):
        draws[i] = np.bincount(which[generator.random(n) < p], minlength=bins)
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


def _bins(confidence: Floats, bins: int, equal_mass: bool) -> Ints:
    if equal_mass:
        position = np.empty(len(confidence), dtype=np.int64)
        position[np.argsort(confidence, kind="stable")] = np.arange(len(confidence))
        return position * bins // len(confidence)
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)
