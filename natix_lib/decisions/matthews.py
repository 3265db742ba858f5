"""Matthews correlation from counts, of two classes or more: Gorodkin's R_K, which for two is the phi coefficient."""

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.arrays import Floats


def matthews(hits: ArrayLike, labels: ArrayLike, answers: ArrayLike, rows: ArrayLike) -> Floats:
    """Correlation of answers with labels, (...), in [-1, 1]; 0 where labels or answers are constant.

    Args:
        hits: Rows of each class that were answered rightly, (..., C).
        labels: Rows of each class, (..., C).
        answers: Rows answered as each class, (..., C).
        rows: All rows, (...).
    """
    right, true, answered, n = (np.asarray(count, dtype=np.float64) for count in (hits, labels, answers, rows))
    covariance = right.sum(axis=-1) * n - (true * answered).sum(axis=-1)
    spread = np.sqrt((n**2 - (true**2).sum(axis=-1)) * (n**2 - (answered**2).sum(axis=-1)))
    result: Floats = np.divide(covariance, spread, out=np.zeros(np.shape(spread)), where=spread > 0)
    return result


def binary_matthews(both: ArrayLike, labels: ArrayLike, answers: ArrayLike, rows: ArrayLike) -> Floats:
    """As `matthews`, for two classes and without stacking their counts: the phi coefficient of the positive one.

    Args:
        both: Positive rows that were answered as positive, (...).
        labels: Positive rows, (...).
        answers: Rows answered as positive, (...).
        rows: All rows, (...).
    """
    hit, true, answered, n = (np.asarray(count, dtype=np.float64) for count in (both, labels, answers, rows))
    spread = np.sqrt((true * (n - true)) * (answered * (n - answered)))  # grouped so that all right is exactly 1
    result: Floats = np.divide(hit * n - true * answered, spread, out=np.zeros(np.shape(spread)), where=spread > 0)
    return result
