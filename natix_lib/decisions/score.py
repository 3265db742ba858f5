"""The score that decisions are made on, and what logits must be before anything is computed from them.

The score is the log-odds of the predicted class in float64. The largest softmax probability was rejected: in float32
it reads exactly 1.0 for many over-confident rows, which makes false ties, and log-odds order the rows in the same way.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_lib.errors import CalibrationError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def check_logits(logits: ArrayLike) -> Floats:
    """Logits as finite float64 (n, C), C >= 2.

    Raises:
        CalibrationError: If the shape is another, no row is there, or a row is not finite (rows are named).
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise CalibrationError(f"logits must have the shape (n, C) with C at least 2, got {values.shape}")
    if not len(values):
        raise CalibrationError("logits must have at least one row, got none: the split is empty")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        rows = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise CalibrationError(f"logits must be finite, {len(bad)} of {len(values)} rows are not: {rows}")
    return values


def check_labels(labels: ArrayLike, rows: int, classes: int) -> Ints:
    """Labels as int64 (n,), each a class.

    Raises:
        CalibrationError: If the length differs from the logits' or a label is no class.
    """
    values = np.asarray(labels)
    if values.shape != (rows,):
        raise CalibrationError(f"labels must have the length of the logits, {rows}, got shape {values.shape}")
    if not np.issubdtype(values.dtype, np.integer):
        raise CalibrationError(f"labels must be whole numbers, got {values.dtype}")
    bad = np.flatnonzero((values < 0) | (values >= classes))
    if len(bad):
        raise CalibrationError(f"labels must be in 0..{classes - 1}, row {bad[0]} has {values[bad[0]]}")
    result: Ints = np.asarray(values, dtype=np.int64)
    return result


def predictions(logits: Floats) -> Ints:
    """The class of the largest logit, the lowest index on ties: int64 (n,)."""
    result: Ints = logits.argmax(axis=1).astype(np.int64)
    return result


def log_odds(logits: ArrayLike) -> Floats:
    """Log-odds of the predicted class, `z_top - log sum_{j != top} exp(z_j)`.

    Args:
        logits: (n, C), C >= 2.

    Returns:
        float64 (n,), at least -log(C - 1), finite for all finite logits.

    Raises:
        CalibrationError: As `check_logits`.
    """
    values = check_logits(logits).copy()
    rows = np.arange(len(values))
    top = predictions(values)
    highest = values[rows, top]
    values[rows, top] = -np.inf
    return highest - _log_sum_exp(values)


def group_log_odds(logits: Floats, members: Bools) -> Floats:
    """Log-odds of a group of classes against all others, (n,); `members` (C,) is neither empty nor full."""
    return _log_sum_exp(logits[:, members]) - _log_sum_exp(logits[:, ~members])


def softmax(logits: Floats) -> Floats:
    """Probabilities (n, C) in float64."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def _log_sum_exp(values: Floats) -> Floats:
    highest = values.max(axis=1)
    result: Floats = highest + np.log(np.exp(values - highest[:, None]).sum(axis=1))
    return result
