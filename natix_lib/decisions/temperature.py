"""Temperature scaling by a solver that finds the minimum.

The mean negative log-likelihood is convex in beta = 1/T, so its derivative has one root. A pass over the rows gives
the first four derivatives (the cumulants of the logits under the row's probabilities); the step solves the Taylor
series, so a start that is right to half a percent is right to one in 10^9 after one pass. The start comes from a
thirty-second part of the rows. Everything is float64 on logits from which the row's maximum is taken; far from the
root the step is Newton's in log(beta), and bisection where that leaves the bracket.

Where no row is wrong the likelihood has no finite optimum, and where few are, by little, its optimum says more than so
few rows can: 12 images, all right, gave T = .009. So no temperature sharpens beyond what n rows without an error
support. Of n right rows the error rate may still be 1 - .05^(1/n), Clopper & Pearson's upper bound at 95 %, about 3/n;
the sharpest T allowed is the best one for that many wrong: every prediction right but for this share, which goes to
the runner-up (the smoothed targets of Platt 1999, who takes 1/(n+2)). On rows of one margin the confidence is then
.05^(1/n). T is the larger of the optimum and this limit, and the limit is never above 1: T = 1 is what the model says
itself, and it takes rows to contradict it. So T moves without a jump when the last error goes, and the optimum stands
where the errors together lie at least as far off as those three would. A prior on T, or Platt's targets throughout,
were rejected: either moves every fit.

LBFGS on T with a fixed rate and 50 iterations, as in most published code, was rejected: it stops far from the minimum
for true temperatures of .5 or 30 and can return a negative T. Reading all rows in every pass of plain Newton was
rejected too: four to six passes in place of two.

References: Guo, Pleiss, Sun & Weinberger (2017), On Calibration of Modern Neural Networks, ICML; Platt (1999),
Probabilistic Outputs for Support Vector Machines, section 2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.arrays import Floats, Ints
from natix_lib.decisions.binomial import upper_risk_bound
from natix_lib.decisions.blocks import columns, over_blocks, sum_columns
from natix_lib.decisions.score import Logits, check_groups, check_labels, check_logits, require_positive

LEAST_SHARE, MOST_SHARE = (
    0.01,
    1e4,
)  # the temperatures allowed, in root-mean-square gaps below the row's maximum; 1 always is
SLOPE_ROUNDING = 1e-14  # in the same unit: a slope at beta = 0 that cannot be told from 0
DOUBT = 0.05  # that the error rate is above the bound which sets the limit: one-sided 95 %, the usual level
PART = 32  # a larger fit starts from every 32nd row, and that one from every 1024th
LEAST = 1000  # rows of a part that is worth it
TOLERANCE = 1e-9  # on d nll / d log(beta), nats: T is then right to about one in 10^8
SERIES = 0.05  # relative step up to which the Taylor series is trusted


@dataclass(frozen=True)
class TemperatureFit:
    """A fitted temperature.

    Attributes:
        temperature: T > 0; probabilities are softmax(logits / T).
        status: One of `ok`; `separable`, every row is right and T is the least that so many rows support;
            `near_separable`, the minimum is sharper than that and T is the same limit; `worse_than_uniform`, no finite
            T beats uniform probabilities and T is 1; `constant`, all logits of each row are equal and T is 1;
            `clamped`, the minimum lies outside the numbers allowed.
        reason: What the status means, for a person; empty when it is `ok`.
        nll: Mean negative log-likelihood at T, nats.
        passes: Passes over all the rows.
        gradient: Slope of the nll at T, d nll / d log(1/T).
    """

    temperature: float
    status: str
    reason: str
    nll: float
    passes: int
    gradient: float


def fit_temperature(logits: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None) -> TemperatureFit:
    """The temperature that minimises the mean negative log-likelihood; never one worse than T = 1.

    It is never sharper than what so many rows support, and the range allowed, which holds 1, scales with the logits.

    Args:
        logits: Finite logits, (n, C), C >= 2.
        labels: Class number of each row, in 0..C-1, (n,).
        groups: Group of each row, (n,): then so many groups, not rows, speak for a sharp temperature.

    Raises:
        CalibrationError: If logits, labels or groups break their rules.
    """
    values = check_logits(logits)
    y = check_labels(labels, *values.shape)
    unit, units = ("image", len(y)) if groups is None else ("group", len(np.unique(check_groups(groups, len(y)))))
    uniform = float(np.log(values.shape[1]))
    depth, mean, gap = _depths(values, y)

    def finish(temperature: float, status: str, reason: str = "") -> TemperatureFit:
        series = _series(values, depth, 1.0 / temperature)
        return TemperatureFit(temperature, status, reason, float(series[0]), 2, float(series[1]) / temperature)

    if not gap:
        return TemperatureFit(1.0, "constant", "all logits of each image are equal", uniform, 1, 0.0)
    if mean - depth >= -SLOPE_ROUNDING * gap:
        return finish(1.0, "worse_than_uniform", "no temperature beats saying that all classes are alike")
    least, most = min(1 / (MOST_SHARE * gap), 1.0), max(1 / (LEAST_SHARE * gap), 1.0)
    status, reason = "clamped", "the best temperature is out of range"
    share = upper_risk_bound(0, units, DOUBT)
    if -depth < share * -mean * values.shape[1] / (values.shape[1] - 1):  # a margin is at most the row's mean gap
        smoothed = share * _runner_up_depth(values)
        if depth >= smoothed:
            most = _minimum(values, smoothed, 1.0, 1.0, most)[0] if smoothed else 1.0
            status, few = ("near_separable", "hardly any prediction is") if depth else ("separable", "no prediction is")
            reason = f"{few} wrong: T is the sharpest that {units} {unit}s without an error support, and at most 1"
    beta = 1.0
    for step in (PART * PART, PART):
        if len(y) // step >= LEAST:
            part = values[::step]
            beta, *_ = _minimum(part, _depths(part, y[::step])[0], beta, least, most)
    beta, nll, gradient, passes = _minimum(values, depth, beta, least, most)
    if least < beta < most:
        status, reason = "ok", ""
    if abs(beta - 1.0) < 1e-6:  # convex: anywhere else the minimum is below T = 1 by more than rounding
        unscaled = finish(1.0, status, reason)
        if unscaled.nll <= nll:
            return unscaled
    return TemperatureFit(1 / beta, status, reason, nll, passes + 1, gradient)


def _runner_up_depth(values: Logits) -> float:
    """Mean over the rows of the second largest logit less the largest."""

    def work(block: slice) -> float:
        z = np.partition(columns(values, block), -2, axis=0)
        return float((z[-2] - z[-1]).sum())

    return sum(over_blocks(work, *values.shape)) / len(values)


def _depths(values: Logits, labels: Ints) -> tuple[float, float, float]:
    """How far logits lie below the largest of their row: mean of the labels', mean and root mean square of all."""

    def work(block: slice) -> tuple[float, float, float]:
        z = columns(values, block)
        z -= z.max(axis=0)
        depth = z[labels[block], np.arange(z.shape[1])]
        return float(depth.sum()), float(sum_columns(z).sum()), float(np.einsum("cb,cb->", z, z))

    depth, sums, squares = map(sum, zip(*over_blocks(work, *values.shape), strict=True))
    return depth / len(labels), sums / values.size, float(np.sqrt(squares / values.size))


def _series(values: Logits, depth: float, beta: float) -> Floats:
    """Mean nll at beta and its first four derivatives in beta, (5,), of targets of mean depth `depth`."""

    def work(block: slice) -> Floats:
        z = columns(values, block)
        z -= z.max(axis=0)
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
        return np.array([part.sum() for part in (np.log(total), m1, second, third, fourth)])

    result: Floats = np.sum(over_blocks(work, *values.shape), axis=0) / len(values)
    result[:2] -= (beta * depth, depth)
    return result


def _minimum(values: Logits, depth: float, beta: float, least: float, most: float) -> tuple[float, float, float, int]:
    """The minimising beta in [least, most], its nll, the slope in log(beta) there, and the passes made."""
    passes = 0
    low, high = 0.0, np.inf  # where the slope was seen to be below and above 0
    while passes < 100:
        passes += 1
        series = _series(values, depth, beta)
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


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0) -> Floats:
    """-log softmax(logits / temperature)[label] of each row, nats, (n,).

    Raises:
        CalibrationError: If logits, labels or temperature break their rules.
    """
    values = check_logits(logits)
    y = check_labels(labels, *values.shape)
    require_positive("temperature", temperature)
    result = np.empty(len(y))

    def work(block: slice) -> None:
        z = columns(values, block)
        z -= z.max(axis=0)
        z /= temperature
        depth = z[y[block], np.arange(z.shape[1])]
        result[block] = np.log(sum_columns(np.exp(z))) - depth

    over_blocks(work, *values.shape)
    return result
