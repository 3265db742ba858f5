"""The score that decisions are made on, and what logits must be before anything is computed from them.

The score is the log-odds of the predicted class in float64. The largest softmax probability was rejected: in float32
it reads exactly 1.0 for many over-confident rows, which makes false ties, and log-odds order the rows in the same way.
It is computed from differences of logits alone, so a constant added to a row changes no bit of it where the sum is
exact, and it is the same for a row alone as for the row among a million: the runtime decides as the fit did.
"""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_lib.arrays import Bools, Floats, Ints
from natix_lib.decisions.blocks import columns, over_blocks, sum_columns
from natix_lib.errors import CalibrationError

Logits = NDArray[np.float32] | NDArray[np.float64]
SUM_ROUNDING = 1e-3  # of a row of probabilities: what a softmax in float16 leaves


def check_logits(logits: ArrayLike) -> Logits:
    """Logits as finite float32 or float64 (n, C), C >= 2; other numbers become float64.

    Raises:
        CalibrationError: If the shape is another, no row is there, or a row is not finite (rows are named).
    """
    values: Logits = _numbers("logits", logits)
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
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
    values = as_array("labels", labels)
    if values.shape != (rows,):
        raise CalibrationError(f"labels must have the length of the logits, {rows}, got shape {values.shape}")
    if not np.issubdtype(values.dtype, np.integer):
        raise CalibrationError(f"labels must be whole numbers, got {values.dtype}")
    bad = np.flatnonzero((values < 0) | (values >= classes))
    if len(bad):
        raise CalibrationError(f"labels must be in 0..{classes - 1}, row {bad[0]} has {values[bad[0]]}")
    result: Ints = np.asarray(values, dtype=np.int64)
    return result


def check_mask(name: str, mask: ArrayLike, rows: int | None = None) -> Bools:
    """A mask as booleans (n,): booleans as they are, numbers when each is exactly 0 or 1, nothing else.

    Numbers are converted because an array of 0 and 1 read as row numbers takes rows 0 and 1 again and again.

    Args:
        name: The argument's name, for the error.
        mask: Booleans, or numbers that are 0 or 1, (n,), n >= 1.
        rows: The length n that another argument has; None allows any.

    Raises:
        CalibrationError: Naming the argument, the rule and the value.
    """
    values = as_array(name, mask)
    _check_length(name, values, rows)
    if values.dtype == np.bool_:
        return values
    if values.dtype.kind not in "iuf":
        raise CalibrationError(f"{name} must be booleans, or 0 and 1, got {values.dtype}")
    bad = np.flatnonzero((values != 0) & (values != 1))  # NaN is neither
    if len(bad):
        raise CalibrationError(f"{name} must be 0 or 1, row {bad[0]} is not: {values[bad[0]]}")
    result: Bools = values == 1
    return result


def check_scores(name: str, scores: ArrayLike, rows: int | None = None) -> Floats:
    """One finite number a row as float64 (n,), n >= 1; arguments and errors as `check_mask`."""
    values = _numbers(name, scores)
    _check_length(name, values, rows)
    result: Floats = values.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(result))
    if len(bad):
        raise CalibrationError(f"{name} must be finite, row {bad[0]} is not: {values[bad[0]]}")
    return result


def check_confidence(confidence: ArrayLike) -> Floats:
    """Probabilities of the predictions, in [0, 1], float64 (n,); errors as `check_scores`."""
    values = check_scores("confidence", confidence)
    bad = np.flatnonzero((values < 0) | (values > 1))
    if len(bad):
        raise CalibrationError(f"confidence must be in [0, 1], row {bad[0]} has {values[bad[0]]}")
    return values


def check_probabilities(probabilities: ArrayLike) -> Floats:
    """Probabilities of all classes as float64 (n, C), n >= 1, C >= 2, each row of them summing to 1.

    Raises:
        CalibrationError: Naming the rule, and the row that breaks it.
    """
    values: Floats = _numbers("probabilities", probabilities).astype(np.float64)
    if values.ndim != 2 or values.shape[1] < 2 or not len(values):
        raise CalibrationError(f"probabilities must have the shape (n, C), n at least 1, C 2, got {values.shape}")
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)).all(axis=1))  # NaN is neither
    if len(bad):
        raise CalibrationError(f"probabilities must be in [0, 1], row {bad[0]} has {values[bad[0]].tolist()}")
    sums = values.sum(axis=1)
    bad = np.flatnonzero(np.abs(sums - 1) > SUM_ROUNDING)
    if len(bad):
        raise CalibrationError(f"probabilities must sum to 1 in every row, row {bad[0]} sums to {sums[bad[0]]:.6f}")
    return values


def check_groups(groups: ArrayLike, rows: int | None = None) -> NDArray[np.generic]:
    """Names of groups (n,): all whole numbers or all texts, so that equal names are one group and no other.

    Raises:
        CalibrationError: Naming the rule and the value.
    """
    values = as_array("groups", groups)
    if values.dtype == object and all(isinstance(name, str) for name in values.ravel()):
        values = values.astype(np.str_)
    if rows is not None and values.shape != (rows,):
        raise CalibrationError(f"groups must have the length of the scores, {rows}, got shape {values.shape}")
    _check_length("groups", values, rows)
    if values.dtype.kind not in "iuUS":
        raise CalibrationError(f"groups must be whole numbers or texts, got {values.dtype}")
    return values


def as_array(name: str, values: ArrayLike) -> NDArray[Any]:
    """Any array or list as an array; what has no one shape, and what hides values, is refused."""
    if np.ma.isMaskedArray(values):
        raise CalibrationError(f"{name} must not be a masked array: take the rows that are there")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; tensors that numpy does not know
        raise CalibrationError(f"{name} must be an array: {str(error).splitlines()[0]}") from error


def _numbers(name: str, values: ArrayLike) -> NDArray[Any]:
    result = as_array(name, values)
    if result.dtype.kind not in "iuf":
        raise CalibrationError(f"{name} must be numbers, got {result.dtype}")
    return result


def _check_length(name: str, values: NDArray[Any], rows: int | None) -> None:
    if values.ndim != 1 or not len(values):
        raise CalibrationError(f"{name} must have the shape (n,), n at least 1, got {values.shape}")
    if rows is not None and len(values) != rows:
        raise CalibrationError(f"{name} must have {rows} rows as what it goes with, got {len(values)}")


def log_odds(logits: ArrayLike) -> Floats:
    """Log-odds of the predicted class, `-log sum_{j != top} exp(z_j - z_top)`.

    Args:
        logits: Finite logits, (n, C), C >= 2.

    Returns:
        float64 (n,), at least -log(C - 1), finite for all finite logits.

    Raises:
        CalibrationError: As `check_logits`.
    """
    return predictions_and_log_odds(logits)[1]


def predictions_and_log_odds(logits: ArrayLike) -> tuple[Ints, Floats]:
    """The class of the largest logit, the lowest index on ties, int64 (n,), and its log-odds; raises as `log_odds`."""
    values = check_logits(logits)
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


def has_binary_score(positive: Bools) -> bool:
    """Whether classes (C,) are some of them positive and others not: then p(positive) is a score."""
    return bool(positive.any() and not positive.all())


def group_log_odds(logits: ArrayLike, members: ArrayLike, temperature: float = 1.0) -> Floats:
    """Log-odds of a group of classes against all others, (n,); `members` (C,) is neither empty nor full."""
    values = check_logits(logits)
    n, classes = values.shape
    inside = check_mask("members", members, classes)
    require_positive("temperature", temperature)
    if inside.all() or not inside.any():
        raise CalibrationError(f"members must be some of the {classes} classes and not all, got {int(inside.sum())}")
    result = np.empty(n)

    def work(block: slice) -> None:
        z = columns(values, block)
        z -= z.max(axis=0)
        z /= temperature
        result[block] = _log_sum_exp(z[inside]) - _log_sum_exp(z[~inside])

    over_blocks(work, n, classes)
    return result


def softmax(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Probabilities in float64, the softmax of logits / temperature, (n, C)."""
    values = check_logits(logits)
    require_positive("temperature", temperature)
    n, classes = values.shape
    result = np.empty((n, classes))

    def work(block: slice) -> None:
        z = columns(values, block)
        z -= z.max(axis=0)
        z /= temperature
        np.exp(z, out=z)
        z /= sum_columns(z)
        result[block] = z.T

    over_blocks(work, n, classes)
    return result


def require_positive(name: str, value: object) -> None:
    """Refuse what is no finite number above 0.

    Raises:
        CalibrationError: Naming it.
    """
    if not isinstance(value, Real) or not 0 < float(value) < np.inf:
        raise CalibrationError(f"{name} must be a finite number above 0, got {value!r}")


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
