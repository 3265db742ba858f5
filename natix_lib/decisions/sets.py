"""Prediction sets on accepted images: the classes that cannot be ruled out.

A class is in the set when its LAC score, 1 - probability, is at most a threshold; the prediction is always in it, which
can only raise the coverage. The accept rule and the temperature must come from other rows than the ones given here
(`draws.first_half` divides them), or the accepted are no sample of what will be accepted.

`pac` (SCRC-split): with m accepted, k* is the most misses that the binomial test allows, and the threshold is the
(m - k*)-th smallest score of the true class: at most a share alpha of the sets of accepted images miss the label, with
confidence 1 - delta. `scrc_i` is the inductive procedure of Xu, Guo & Wei (arXiv 2512.12844), conformal risk control on
the accepted: alpha bounds the expected share, averaged over calibration sets, and for the one at hand it may be more;
read as a statement of confidence 1 - delta it failed in 30 to 42 % of simulated trials, so it has a name of its own.
Their SCRC-T needs the test image at calibration and cannot be shipped as a file.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.arrays import Floats
from natix_lib.decisions.binomial import least_accepted, most_errors, require_open, upper_risk_bound
from natix_lib.decisions.draws import independent_rows
from natix_lib.decisions.score import check_labels, check_mask, check_probabilities
from natix_lib.errors import CalibrationError

DIGITS = 9  # of probabilities that draw lots: the last ones differ with the order in which a temperature was summed
PAC, SCRC_I = SETS = ("pac", "scrc_i")
PROMISES = {
    PAC: "of the accepted, the share of sets that miss the label is at most alpha, with confidence 1 - delta",
    SCRC_I: "the share of sets that miss the label is at most alpha on average over calibration sets; "
    "for this one it may be more",
}


@dataclass(frozen=True)
class PredictionSets:
    """A threshold for prediction sets.

    Attributes:
        threshold: A class is in the set iff 1 - its probability <= this; 1.0 admits every class.
        procedure: Name of the procedure: `pac` or `scrc_i`.
        certified: Whether `pac`'s promise holds with a threshold below 1.0; always False for `scrc_i`.
        m: Accepted rows.
        k: Sets of these rows that miss the label.
        upper_bound: Clopper-Pearson bound at confidence 1 - delta on the share that misses; None unless certified.
        unit: What a row stands for, `image` or `group`.
        reason: Why every class is admitted; empty otherwise.
        promise: What the procedure promises, in words.
    """

    threshold: float
    procedure: str
    certified: bool
    m: int
    k: int
    upper_bound: float | None
    unit: str
    reason: str
    promise: str


def lac_scores(probabilities: Floats) -> Floats:
    """LAC score of every class, in [0, 1], (n, C), of checked probabilities; the one place where it is computed."""
    return 1.0 - probabilities


def fit_prediction_sets(
    probabilities: ArrayLike,
    labels: ArrayLike,
    accepted: ArrayLike,
    alpha: float,
    delta: float,
    groups: ArrayLike | None = None,
    procedure: str = PAC,
) -> PredictionSets:
    """The smallest sets whose promise holds.

    Args:
        probabilities: Probability of each class, (n, C), of rows on which neither the accept rule nor the temperature
            was fitted.
        labels: Class number of each row, in 0..C-1, (n,).
        accepted: Which rows the accept rule accepts, booleans or 0 and 1, (n,).
        alpha: Bound on the share of the accepted whose set misses the label, in (0, 1).
        delta: Probability that `pac`'s bound does not hold, in (0, 1).
        groups: Group of each row, (n,); one row of each is drawn, before any is rejected.
        procedure: Name of the procedure: `pac` or `scrc_i`.

    Returns:
        The threshold; too few accepted rows are an answer that admits every class, with its reason.

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    require_open("alpha", alpha)
    require_open("delta", delta)
    if procedure not in SETS:
        raise CalibrationError(f"procedure must be one of {', '.join(SETS)}, got {procedure!r}")
    p = check_probabilities(probabilities)
    y = check_labels(labels, *p.shape)
    stands = check_mask("accepted", accepted, len(y))
    rows, unit = independent_rows(groups, p.round(DIGITS), y, stands)
    chosen = np.arange(len(y))[rows]
    chosen = chosen[stands[chosen]]
    label_scores = np.sort(lac_scores(p)[chosen, y[chosen]])
    m = len(label_scores)
    if procedure == PAC:
        allowed = most_errors(m, alpha, delta)
        needed = least_accepted(alpha, delta)
    else:
        allowed = m - int(np.ceil((m + 1) * (1 - alpha)))
        needed = int(np.ceil(1 / alpha)) - 1
    if allowed < 0:
        reason = f"needs at least {needed} accepted {unit}s at alpha {alpha:g}, delta {delta:g} ({procedure}), has {m}"
        return PredictionSets(1.0, procedure, False, m, 0, None, unit, reason, PROMISES[procedure])
    threshold = float(label_scores[m - allowed - 1])
    misses = int(m - np.searchsorted(label_scores, threshold, side="right"))
    certified = procedure == PAC
    bound = upper_risk_bound(allowed, m, delta) if certified else None
    return PredictionSets(threshold, procedure, certified, m, misses, bound, unit, "", PROMISES[procedure])
