"""Taking back what class weights did to the logits.

A classifier that is fitted with a loss in which class c weighs w_c learns the posterior of another population, in
which each class is w_c times as frequent: its logits are log p(c|x) + log w_c, up to a constant of the row, where p is
what the images themselves say (Elkan 2001, theorem 2; King & Zeng 2001). With balanced weights and 3 % of positives the
mean probability of a positive is then near .2, and no temperature mends it, because a temperature has no direction.
The direction is known, log w. How far to go in it is not: a network whose logits are k times too steep shifts by
k log w, and one that stopped early, or was regularised, by another share of it. So

    probabilities = softmax(logits / T - b log w),    which decides as    softmax(logits - s log w),    s = b T,

where T and b are fitted on VAL_SELECT by the likelihood, convex in 1 / T and b, and s alone is used: the temperature of
the corrected logits is fitted on VAL_CALIB. In theory b is 1, and in `make bench-prior` fixing it there is as good; a
small head that kept its first epoch (drawn images, tests/steps/test_train.py) needed s = 3.0, and with b = 1 its loss
on VAL_CALIB was .215 in place of .162. Rejected, by the same benchmark: s = 1, which costs .06 nats and a fifth of the
certified coverage where logits are 2.5 times too steep; and a bias for each class at T = 1, which loses there too, and
is as many numbers as there are classes.

Where no image of VAL_SELECT is classified wrongly the likelihood has no finite optimum, and where few are it is vague.
So log T has the standard normal as its prior, a factor e either way, and b - 1 too: weak beside 300 images, and without
data they say s = 1. Frames of one group speak once together: their likelihood counts as one image's.

References: Elkan (2001), The Foundations of Cost-Sensitive Learning, IJCAI; King & Zeng (2001), Logistic Regression in
Rare Events Data, Political Analysis 9; Menon et al. (2021), Long-tail Learning via Logit Adjustment, ICLR.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from natix_lib.arrays import Floats, Ints
from natix_lib.contracts import VAL_SELECT
from natix_lib.decisions.blocks import columns, over_blocks, sum_columns
from natix_lib.decisions.score import Logits, as_array, check_groups, check_labels, check_logits
from natix_lib.errors import CalibrationError
from natix_lib.files import JsonDict

BOUNDS = [(-4.0, 4.0), (-20.0, 20.0)]  # of log(1 / T) and b; the priors make either end a matter of thousands of images
NONE, FITTED, ANALYTIC = "none", "fitted", "analytic"


@dataclass(frozen=True)
class PriorShift:
    """What is added to logits so that they speak of images as frequent as they are.

    Attributes:
        weights: Weight of each class in the loss, float64 (C,).
        shift: Added to the logits of each class, float64 (C,), summing to 0; all 0 where nothing was weighed.
        strength: s; the shift is -s log w, centred. 1 where it is not fitted.
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
    """The s = b T that maximises the posterior of log T and b."""
    depth = float(log_weights[truth].mean())

    def loss(point: Floats) -> tuple[float, Floats]:
        log_slope, share = float(point[0]), float(point[1])
        slope = float(np.exp(log_slope))

        def work(block: slice) -> Floats:
            z = columns(values, block)
            z -= z.max(axis=0)
            of_truth = z[truth[block], np.arange(z.shape[1])]
            inner = slope * z - share * log_weights[:, None]
            top = inner.max(axis=0)
            weights = np.exp(inner - top)
            total = sum_columns(weights)
            weights /= total
            nll = np.log(total) + top - slope * of_truth
            z *= weights
            return np.array([nll.sum(), (sum_columns(z) - of_truth).sum(), float((log_weights @ weights).sum())])

        nll, of_slope, of_share = np.sum(over_blocks(work, *values.shape), axis=0) / len(truth)
        penalty = (log_slope**2 + (share - 1) ** 2) / (2 * units)
        gradient = np.array([slope * of_slope + log_slope / units, depth - of_share + (share - 1) / units])
        return float(nll + share * depth + penalty), gradient

    found = minimize(
        loss, [0.0, 1.0], jac=True, method="L-BFGS-B", bounds=BOUNDS, options={"ftol": 1e-15, "gtol": 1e-8}
    ).x
    return float(found[1] / np.exp(found[0]))
