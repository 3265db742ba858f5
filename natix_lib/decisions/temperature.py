"""Temperature scaling by a solver that finds the minimum.

The mean negative log-likelihood is convex in beta = 1/T, so its derivative has one root. A pass over the rows gives
the first four derivatives (the cumulants of the logits under the row's probabilities); the step solves the Taylor
series, so a start that is right to half a percent is right to one in 10^9 after one pass. The start comes from a
thirty-second part of the rows. Everything is float64 on logits from which the row's maximum is taken; far from the
root the step is Newton's in log(beta), and bisection where that leaves the bracket.

LBFGS on T with a fixed rate and 50 iterations, as in most published code, was rejected: it stops far from the minimum
for true temperatures of .5 or 30 and can return a negative T. Reading all rows in every pass of plain Newton was
rejected too: four to six passes in place of two.

Reference: Guo, Pleiss, Sun & Weinberger (2017), On Calibration of Modern Neural Networks, ICML.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.decisions.blocks import columns, over_blocks, sum_columns
from natix_lib.decisions.score import Floats, Ints, Logits, check_labels, check_logits

LEAST_SHARE, MOST_SHARE = (
    0.01,
    1e4,
)  # the temperatures allowed, in root-mean-square gaps below the row's maximum; 1 always is
SLOPE_ROUNDING = 1e-14  # in the same unit: a slope at beta = 0 that cannot be told from 0
PART = 32  # a larger fit starts from every 32nd row, and that one from every 1024th
LEAST = 1000  # rows of a part that is worth it
TOLERANCE = 1e-9  # on d nll / d log(beta), nats: T is then right to about one in 10^8
SERIES = 0.05  # relative step up to which the Taylor series is trusted


@dataclass(frozen=True)
class TemperatureFit:
    """A fitted temperature.

    Attributes:
        temperature: T > 0; probabilities are softmax(logits / T).
        status: `ok`; `separable`, every row is right and T is the least allowed; `worse_than_uniform`, no finite T
            beats uniform probabilities and T is 1; `constant`, all logits of each row are equal and T is 1; `clamped`,
            the minimum lies outside the allowed range.
        nll: Mean negative log-likelihood at T, nats.
        passes: Passes over all the rows.
        gradient: d nll / d log(1/T) at T.
    """

    temperature: float
    status: str
    nll: float
    passes: int
    gradient: float


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> TemperatureFit:
    """The temperature that minimises the mean negative log-likelihood; never one worse than T = 1.

    The range allowed scales with the logits and holds 1.

    Args:
        logits: (n, C).
        labels: (n,) in 0..C-1.

    Raises:
        CalibrationError: If logits or labels break their rules.
    """
    values = check_logits(logits)
    y = check_labels(labels, *values.shape)
    uniform = float(np.log(values.shape[1]))
    slope, wrong, gap = _ends(values, y)

    def finish(temperature: float, status: str) -> TemperatureFit:
        series = _series(values, y, 1.0 / temperature)
        return TemperatureFit(temperature, status, series[0], 2, series[1] / temperature)

    if not gap:
        return TemperatureFit(1.0, "constant", uniform, 1, 0.0)
    if slope >= -SLOPE_ROUNDING * gap:
        return finish(1.0, "worse_than_uniform")
    if not wrong:
        return finish(min(LEAST_SHARE * gap, 1.0), "separable")
    least, most = min(1 / (MOST_SHARE * gap), 1.0), max(1 / (LEAST_SHARE * gap), 1.0)
    beta = 1.0
    for step in (PART * PART, PART):
        if len(y) // step >= LEAST:
            beta, *_ = _minimum(values[::step], y[::step], beta, least, most)
    beta, nll, gradient, passes = _minimum(values, y, beta, least, most)
    if abs(beta - 1.0) < 1e-6:  # convex: anywhere else the minimum is below T = 1 by more than rounding
        unscaled = finish(1.0, "ok")
        if unscaled.nll <= nll:
            return unscaled
    return TemperatureFit(1 / beta, "ok" if least < beta < most else "clamped", nll, passes + 1, gradient)


def _ends(values: Logits, labels: Ints) -> tuple[float, bool, float]:
    """The slope of the nll at beta = 0, whether any row is wrong, and the root-mean-square gap of the logits."""

    def work(block: slice) -> tuple[float, bool, float]:
        z = columns(values, block)
        z -= z.max(axis=0)
        own = z[labels[block], np.arange(z.shape[1])]
        slope = float((sum_columns(z) / len(z) - own).sum())
        return slope, bool(own.any()), float(np.einsum("cb,cb->", z, z))

    slopes, wrong, squares = zip(*over_blocks(work, *values.shape), strict=True)
    return sum(slopes) / len(labels), any(wrong), float(np.sqrt(sum(squares) / values.size))


def _series(values: Logits, labels: Ints, beta: float) -> Floats:
    """Mean nll at beta and its first four derivatives in beta, (5,)."""

    def work(block: slice) -> Floats:
        z = columns(values, block)
        z -= z.max(axis=0)
        own = z[labels[block], np.arange(z.shape[1])]
        weights = beta * z
        np.exp(weights, out=weights)
        total = sum_columns(weights)
        moments = []
        for _ in range(4):
            weights *= z
            moments.append(sum_columns(weights) / total)
        m1, m2, m3, m4 = moments
        square = m1 * m1
        second = m2 - square
        third = m3 - 3 * m2 * m1 + 2 * m1 * square
        fourth = m4 - 4 * m3 * m1 - 3 * m2 * m2 + 12 * m2 * square - 6 * square * square
        nll = np.log(total) - beta * own
        return np.array([part.sum() for part in (nll, m1 - own, second, third, fourth)])

    result: Floats = np.sum(over_blocks(work, *values.shape), axis=0) / len(labels)
    return result


def _minimum(values: Logits, labels: Ints, beta: float, least: float, most: float) -> tuple[float, float, float, int]:
    """The minimising beta in [least, most], its nll, the slope in log(beta) there, and the passes made."""
    passes = 0
    low, high = 0.0, np.inf  # where the slope was seen to be below and above 0
    while passes < 100:
        passes += 1
        series = _series(values, labels, beta)
        nll, slope = float(series[0]), float(series[1])
        if abs(slope) * beta <= TOLERANCE or beta == (most if slope < 0 else least):
            break
        low, high = (beta, high) if slope < 0 else (low, beta)
        following = min(max(beta + _step(series, beta), least), most)
        if not low < following < high:
            following = float(np.sqrt(max(low, least) * min(high, most)))
        if abs(following - beta) <= 1e-15 * beta:
            break
        beta = following
    return beta, nll, slope * beta, passes


def _step(series: Floats, beta: float) -> float:
    """From beta to the root of the slope; without end where the curvature does not say how far."""
    _, slope, second, third, fourth = map(float, series)
    if second <= 0:
        return -slope * np.inf
    step = -slope / second
    if abs(step) > SERIES * beta:
        in_log = slope + beta * second  # second derivative in log(beta), over beta
        return float(beta * np.expm1(min(-slope / in_log, 50.0))) if in_log > 0 else -slope * np.inf
    newton = step
    for _ in range(8):
        step = newton - (third * step**2 / 2 + fourth * step**3 / 6) / second
    return step


def negative_log_likelihood(logits: Logits, labels: Ints, temperature: float = 1.0) -> Floats:
    """-log softmax(logits / temperature)[label] of each row, nats, (n,)."""
    result = np.empty(len(labels))

    def work(block: slice) -> None:
        z = columns(logits, block)
        z -= z.max(axis=0)
        z /= temperature
        own = z[labels[block], np.arange(z.shape[1])]
        result[block] = np.log(sum_columns(np.exp(z))) - own

    over_blocks(work, *logits.shape)
    return result
