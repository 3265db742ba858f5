"""Taking back what class weights did to the logits.

A classifier that is fitted with a loss in which class c weighs w_c learns the posterior of another population, in
which each class is w_c times as frequent: its logits are log p(c|x) + log w_c, up to a constant of the row, where p is
what the images themselves say (Elkan 2001, theorem 2; King & Zeng 2001). With balanced weights and 3 % of positives the
mean probability of a positive is then near .2, and no temperature mends it, because a temperature has no direction.
The direction is known, log w. How far to go in it is not: a network whose logits are k times too steep shifts by
k log w. So

    probabilities = softmax(logits / T - log w),    which decides as    softmax(logits - s log w),    s = T,

where T is fitted on VAL_SELECT by the likelihood and is used for nothing else: the temperature of the corrected logits
is fitted on VAL_CALIB, and there again. Of the alternatives, all measured by `make bench-prior`: s = 1 leaves half of
the error where logits are too steep or too flat; a second number beside T, the strength, and a free bias for each class
gain nothing, and lose where VAL_SELECT has few images of a class.

Where no image of VAL_SELECT is classified wrongly the likelihood has no finite optimum, and where few are it is vague.
So log T has the standard normal as its prior, a factor e either way: weak beside 300 images, and without data it says
s = 1. Frames of one group speak once together: their likelihood counts as one image's.

References: Elkan (2001), The Foundations of Cost-Sensitive Learning, IJCAI; King & Zeng (2001), Logistic Regression in
Rare Events Data, Political Analysis 9; Menon et al. (2021), Long-tail Learning via Logit Adjustment, ICLR.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from natix_lib.arrays import Floats, Ints
from natix_lib.contracts import VAL_SELECT
from natix_lib.decisions.blocks import columns, over_blocks, sum_columns
from natix_lib.decisions.score import Logits, as_array, check_groups, check_labels, check_logits
from natix_lib.errors import CalibrationError
from natix_lib.files import JsonDict

LEAST, MOST = 0.05, 20.0  # strengths allowed; the prior on log T makes either end a matter of thousands of images
NONE, FITTED, ANALYTIC = "none", "fitted", "analytic"


@dataclass(frozen=True)
class PriorShift:
    """What is added to logits so that they speak of images as frequent as they are.

    Attributes:
        weights: Weight of each class in the loss, float64 (C,).
        shift: Added to the logits of each class, float64 (C,), summing to 0; all 0 where nothing was weighed.
        strength: s > 0; the shift is -s log w, centred. 1 where it is not fitted.
        status: `none`, all classes weigh the same; `fitted`, s is from the data; `analytic`, s is 1 for the `reason`.
        reason: Why s is not fitted; empty where it is.
        images: Rows that s was fitted on; 0 where it was not.
    """

    weights: Floats
    shift: Floats
    strength: float
    status: str
    reason: str
    images: int

    def document(self) -> JsonDict | None:
        """What is kept of it beside the weights that it has changed; None where it changes nothing."""
        if self.status == NONE:
            return None
        return {
            "class_weights": self.weights.tolist(),
            "strength": self.strength,
            "fitted_on": {"role": VAL_SELECT, "images": self.images} if self.images else None,
            "shift": self.shift.tolist(),
            "status": self.status,
            "reason": self.reason,
            "sentence": self.sentence(),
        }

    def sentence(self) -> str:
        """What was done, for a person."""
        if self.status == NONE:
            return "No class weighed more than another in training, so no logit was shifted."
        fit = (
            f"{self.strength:.3g} times their logarithm, fitted on {self.images} images of {VAL_SELECT}"
            if self.status == FITTED
            else f"their logarithm, not fitted on {VAL_SELECT}, as {self.reason}"
        )
        return f"Class weights in training shifted the logits; this was taken back in the head's bias, by {fit}."


def fit_prior_shift(
    logits: ArrayLike, labels: ArrayLike, weights: ArrayLike, groups: ArrayLike | None = None
) -> PriorShift:
    """The shift of the logits that takes class weights back.

    Args:
        logits: Finite logits of images that the weights were not fitted on, as frequent as in use, (n, C), C >= 2.
        labels: Class number of each row, in 0..C-1, (n,).
        weights: Weight of each class in the loss, finite and above 0, (C,).
        groups: Group of each row, (n,): then so many groups, not rows, speak against s = 1.

    Raises:
        CalibrationError: If logits, labels, weights or groups break their rules.
    """
    values = check_logits(logits)
    truth = check_labels(labels, *values.shape)
    weight = _check_weights(weights, values.shape[1])
    log_weights = _centred_logarithms(weight)
    units = len(truth) if groups is None else len(np.unique(check_groups(groups, len(truth))))
    if not log_weights.any():
        return PriorShift(weight, log_weights, 1.0, NONE, "", 0)
    absent = np.flatnonzero(np.bincount(truth, minlength=values.shape[1]) == 0)
    if len(absent):
        reason = f"class number {absent[0]} has no image to fit it on"
        return PriorShift(weight, -log_weights, 1.0, ANALYTIC, reason, 0)
    strength = _strength(values, truth, log_weights, units)
    return PriorShift(weight, -strength * log_weights, strength, FITTED, "", len(truth))


def _check_weights(weights: ArrayLike, classes: int) -> Floats:
    values = as_array("weights", weights)
    if values.shape != (classes,) or values.dtype.kind not in "iuf":
        raise CalibrationError(f"weights must be {classes} numbers, one a class, got {values.dtype} {values.shape}")
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(bad):
        raise CalibrationError(f"weights must be finite and above 0, class number {bad[0]} has {values[bad[0]]}")
    result: Floats = values.astype(np.float64)
    return result


def _centred_logarithms(weights: Floats) -> Floats:
    """Logarithms of the weights, (C,), less their mean; exactly 0 where all weights are the same."""
    if (weights == weights[0]).all():
        return np.zeros(len(weights))
    result: Floats = np.log(weights) - np.log(weights).mean()
    return result


def _strength(values: Logits, truth: Ints, log_weights: Floats, units: int) -> float:
    """The T that maximises the posterior, in [LEAST, MOST]."""
    depth_of_truth = float(log_weights[truth].mean())

    def loss(log_strength: float) -> float:
        def work(block: slice) -> float:
            z = columns(values, block)
            z -= z.max(axis=0)  # before it is scaled: an infinity is no logit
            z *= np.exp(-log_strength)
            of_truth = z[truth[block], np.arange(z.shape[1])].sum()
            z -= log_weights[:, None]
            top = z.max(axis=0)
            z -= top
            return float((np.log(sum_columns(np.exp(z, out=z))) + top).sum() - of_truth)

        nll = sum(over_blocks(work, *values.shape)) / len(truth) + depth_of_truth
        return nll + log_strength**2 / (2 * units)

    bounds = (float(np.log(LEAST)), float(np.log(MOST)))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))
