"""The score that decisions are made on, and what logits must be before anything is computed from them.

The score is the log-odds of the predicted class in float64. The largest softmax probability was rejected: in float32
it reads exactly 1.0 for many over-confident rows, which makes false ties, and log-odds order the rows in the same way.
It is computed from differences of logits alone, so a constant added to a row changes no bit of it where the sum is
exact, and it is the same for a row alone as for the row among a million: the runtime decides as the fit did.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_lib.decisions.blocks import columns, over_blocks, sum_columns
from natix_lib.errors import CalibrationError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Logits = NDArray[np.float32] | NDArray[np.float64]


def check_logits(logits: ArrayLike) -> Logits:
    """Logits as finite float32 or float64 (n, C), C >= 2; other types become float64.

    Raises:
        CalibrationError: If the shape is another, no row is there, or a row is not finite (rows are named).
    """
    values: Logits = np.asarray(logits)
    if values.dtype not in (np.float32, np.float64):
        values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise CalibrationError(f"logits must have the shape (n, C) with C at least 2, got {values.shape}")
    if not len(values):
        raise CalibrationError("logits must have at least one row, got none: the split is empty")
    if not all(over_blocks(lambda block: bool(np.isfinite(values[block]).all()), *values.shape)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
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


def log_odds(logits: ArrayLike) -> Floats:
    """Log-odds of the predicted class, `-log sum_{j != top} exp(z_j - z_top)`.

    Args:
        logits: (n, C), C >= 2.

    Returns:
        float64 (n,), at least -log(C - 1), finite for all finite logits.

    Raises:
        CalibrationError: As `check_logits`.
    """
    values = check_logits(logits)
    return predictions_and_log_odds(values)[1]


def predictions_and_log_odds(values: Logits) -> tuple[Ints, Floats]:
    """The class of the largest logit, the lowest index on ties, int64 (n,), and its log-odds; of checked logits."""
    n, classes = values.shape
    predicted, score = np.empty(n, dtype=np.int64), np.empty(n)
    from_the_end = np.arange(classes, 0, -1).astype(np.min_scalar_type(classes))[:, None]

    def work(block: slice) -> None:
        z = columns(values, block)
        highest = z.max(axis=0)
        # The first class that reaches the maximum; numpy's argmax is five times as slow along either axis.
        top = classes - ((z == highest) * from_the_end).max(axis=0).astype(np.int64)
        predicted[block] = top
        z[top, np.arange(z.shape[1])] = -np.inf
        second = z.max(axis=0)
        z -= second
        np.exp(z, out=z)
        score[block] = (highest - second) - np.log(sum_columns(z))

    over_blocks(work, n, classes)
    return predicted, score


def group_log_odds(logits: Logits, members: Bools, temperature: float = 1.0) -> Floats:
    """Log-odds of a group of classes against all others, (n,); `members` (C,) is neither empty nor full."""
    n, classes = logits.shape
    result = np.empty(n)

    def work(block: slice) -> None:
        z = columns(logits, block)
        z -= z.max(axis=0)
        z /= temperature
        result[block] = _log_sum_exp(z[members]) - _log_sum_exp(z[~members])

    over_blocks(work, n, classes)
    return result


def softmax(logits: Logits, temperature: float = 1.0) -> Floats:
    """Probabilities in float64, the softmax of logits / temperature, (n, C)."""
    n, classes = logits.shape
    result = np.empty((n, classes))

    def work(block: slice) -> None:
        z = columns(logits, block)
        z -= z.max(axis=0)
        z /= temperature
        np.exp(z, out=z)
        z /= sum_columns(z)
        result[block] = z.T

    over_blocks(work, n, classes)
    return result


def probability(log_odds_value: float) -> float:
    """The probability of log-odds, in [0, 1]."""
    return float(1.0 / (1.0 + np.exp(-log_odds_value))) if log_odds_value > -700 else 0.0


def log_odds_at(probability: float) -> float:
    """The log-odds of a probability in (0, 1)."""
    return float(np.log(probability) - np.log1p(-probability))


def _log_sum_exp(values: Floats) -> Floats:
    highest = values.max(axis=0)
    result: Floats = highest + np.log(sum_columns(np.exp(values - highest)))
    return result
