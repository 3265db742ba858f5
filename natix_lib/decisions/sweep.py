"""The rejection threshold of the step sweep, chosen on the exact curve over all thresholds.

The prediction is always the argmax and the threshold only rejects. Comparing "largest probability > t" with the class
label was rejected: it means nothing for 13 classes and is wrong for two. The default objective is macro-F1 with the
rejected counted as missed; F1 on the accepted alone was rejected because it picks a coverage of a thousandth.

The curve is exact at all n thresholds in O(n log n) after the scores: one more accepted row changes the F1 of its
predicted class and of its label and of no other, so the changes are found class by class and summed along the
ranking. Recounting every class at every threshold, O(nC), was rejected. The sums round in the last digits, so the
chosen point is the largest coverage within 1e-12 of the best, and its figures are counted anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_lib.arrays import Bools, Floats, Ints
from natix_lib.decisions.curve import TABLE, order_and_ends, risk_coverage_areas
from natix_lib.decisions.matthews import binary_matthews
from natix_lib.decisions.score import (
    Logits,
    check_labels,
    check_logits,
    log_odds_at,
    predictions_and_log_odds,
    probability,
)
from natix_lib.errors import CalibrationError

OBJECTIVES = ("macro_f1", "coverage_at_risk", "f1_at_coverage", "mcc")
ROUNDING = 1e-12  # of sums along the ranking
Classes = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Curve:
    """The exact threshold curve, one entry for each reachable coverage, from few accepted to all, each (g,)."""

    threshold_logodds: Floats
    accepted: Ints
    coverage: Floats
    selective_risk: Floats
    macro_f1: Floats
    f1_accepted: Floats
    mcc: Floats | None  # of the accepted; binary tasks only


@dataclass(frozen=True)
class ThresholdSweep:
    """A chosen threshold and where it comes from.

    Attributes:
        threshold_logodds: Accept iff log-odds > this; None accepts all.
        threshold: The same as a probability; 0.0 accepts all.
        objective: Name of the objective.
        value: The objective at the threshold.
        f1_score: Macro-F1 at the threshold, rejected counted as missed.
        coverage: Share accepted, in (0, 1].
        selective_risk: Error rate of the accepted.
        n: Rows.
        n_accepted: Accepted rows.
        n_errors: Errors among the accepted.
        absent_classes: Classes without a row, left out of the macro average.
        aurc: Area under the risk-coverage curve.
        augrc: Area under the generalised risk-coverage curve.
        table: `{threshold, coverage, selective_risk, f1_score}` at the thresholds of `curve.TABLE`.
        curve: The whole curve.
    """

    threshold_logodds: float | None
    threshold: float
    objective: str
    value: float
    f1_score: float
    coverage: float
    selective_risk: float
    n: int
    n_accepted: int
    n_errors: int
    absent_classes: list[int]
    aurc: float
    augrc: float
    table: list[dict[str, float | None]]
    curve: Curve


def sweep_thresholds(
    logits: ArrayLike,
    labels: ArrayLike,
    objective: str = "macro_f1",
    max_risk: float = 0.05,
    min_coverage: float = 0.8,
) -> ThresholdSweep:
    """Choose the rejection threshold by an objective; the larger coverage breaks ties.

    Args:
        logits: Finite logits, (n, C), C >= 2.
        labels: Class number of each row, in 0..C-1, (n,).
        objective: What is made best: `macro_f1`, rejected counted as missed; `coverage_at_risk`, most coverage with
            selective risk at most `max_risk`; `f1_at_coverage`, best macro-F1 of the accepted with coverage at least
            `min_coverage`; `mcc`, binary only, best MCC of the accepted with coverage at least `min_coverage`.
        max_risk: Largest selective risk that `coverage_at_risk` allows, in (0, 1).
        min_coverage: Least coverage that `f1_at_coverage` and `mcc` allow, in (0, 1].

    Raises:
        CalibrationError: If inputs break their rules, the labels are of one class, the predictions of one that is not
            the most frequent, or no threshold with any coverage meets the objective.
    """
    values = check_logits(logits)
    n, classes = values.shape
    y = check_labels(labels, n, classes)
    if objective not in OBJECTIVES:
        raise CalibrationError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    if objective == "mcc" and classes != 2:
        raise CalibrationError(f"objective mcc needs 2 classes, got {classes}")
    if not 0 < max_risk < 1:
        raise CalibrationError(f"max_risk must be in (0, 1), got {max_risk:g}")
    if not 0 < min_coverage <= 1:
        raise CalibrationError(f"min_coverage must be in (0, 1], got {min_coverage:g}")
    true, predicted, levels, last = _ranked(values, y)
    curve, errors, areas = _curve(true, predicted, levels, last, classes)
    allowed, goal = None, curve.macro_f1
    if objective == "coverage_at_risk":
        allowed, goal = curve.selective_risk <= max_risk, curve.coverage
        if not allowed.any():
            raise CalibrationError(
                f"zero coverage: no threshold has a selective risk of at most {max_risk:g}, "
                f"the lowest is {curve.selective_risk.min():.4f}"
            )
    elif objective in ("f1_at_coverage", "mcc"):
        allowed = curve.coverage >= min_coverage
        goal = curve.f1_accepted if curve.mcc is None or objective == "f1_at_coverage" else curve.mcc
    best = goal if allowed is None else np.where(allowed, goal, -np.inf)
    chosen = int(np.flatnonzero(best >= best.max() - ROUNDING)[-1])
    threshold, accepted = float(curve.threshold_logodds[chosen]), int(curve.accepted[chosen])
    accept_all = threshold == -np.inf
    return ThresholdSweep(
        threshold_logodds=None if accept_all else threshold,
        threshold=0.0 if accept_all else probability(threshold),
        objective=objective,
        value=float(goal[chosen]),
        f1_score=_counted_f1(true, predicted, accepted, classes),
        coverage=float(curve.coverage[chosen]),
        selective_risk=float(curve.selective_risk[chosen]),
        n=n,
        n_accepted=accepted,
        n_errors=int(errors[chosen]),
        absent_classes=[int(c) for c in np.flatnonzero(np.bincount(y, minlength=classes) == 0)],
        aurc=areas[0],
        augrc=areas[1],
        table=[_table_row(curve, levels, point) for point in TABLE],
        curve=curve,
    )


def require_two_classes(labels: Ints, predicted: Ints) -> None:
    """Refuse checked labels of one class, and predictions that are all one class without the reason that it is common.

    Where one class is most of the images, a sound model may say it of all of them: at 3 % of positives none need be
    more probable than not. What is then accepted is still right as often as a policy says, and a person is told what
    is never said (`constant_prediction`). A model that says a rarer class of all images is broken.

    Raises:
        CalibrationError: Naming the class.
    """
    if (labels == labels[0]).all():
        raise CalibrationError(f"VAL_CALIB must hold at least two classes, all {len(labels)} labels are {labels[0]}")
    counts = np.bincount(labels)
    only, common = int(predicted[0]), int(counts.argmax())
    if (predicted == only).all() and (only >= len(counts) or counts[only] < counts[common]):
        raise CalibrationError(
            f"constant prediction: the model says class {only} for all {len(labels)} images of VAL_CALIB, and most are "
            f"of class {common}: it tells none from another; a pre-trained or adapted backbone, more images or more "
            "epochs may"
        )


def constant_prediction(predicted: Ints, class_names: Sequence[str], what: str) -> str:
    """A sentence where all predictions are one class, for a person; "" where they are not.

    Args:
        predicted: Class number of each row, (n,).
        class_names: Names of the classes.
        what: The rows, in words.
    """
    if (predicted != predicted[0]).any():
        return ""
    only = class_names[int(predicted[0])]
    others = " or ".join(name for name in class_names if name != only)
    return (
        f"constant prediction: the model says {only} for all {len(predicted)} {what} and never {others}: a person must "
        "look for these among the rejected; more images of them, an adapted backbone or more epochs may tell them apart"
    )


def _ranked(values: Logits, labels: Ints) -> tuple[Classes, Classes, Floats, Ints]:
    """Labels and predictions by falling score, (n,) each; score and last position of each tie group, (g,) each."""
    predicted, scores = predictions_and_log_odds(values)
    require_two_classes(labels, predicted)
    order, last = order_and_ends(scores)
    small = np.min_scalar_type(values.shape[1])
    return labels.astype(small)[order], predicted.astype(small)[order], scores[order[last]], last


def _curve(
    true: Classes, predicted: Classes, levels: Floats, last: Ints, classes: int
) -> tuple[Curve, Ints, tuple[float, float]]:
    """The curve, the errors among the accepted at each of its points, and the areas."""
    right = true == predicted
    totals = np.bincount(true, minlength=classes)
    present = int(np.count_nonzero(totals))
    errors = np.cumsum(~right)[last]
    ends = last + 1
    areas = risk_coverage_areas(ends, errors)
    macro, inner = _f1_curves(true, predicted, right, totals)
    curve = Curve(
        threshold_logodds=np.append(levels[1:], -np.inf),
        accepted=ends,
        coverage=ends / len(true),
        selective_risk=errors / ends,
        macro_f1=macro[last] / present,
        f1_accepted=inner[last] / present,
        mcc=_mcc(true, predicted, last) if classes == 2 else None,
    )
    return curve, errors, areas


def _f1_curves(true: Classes, predicted: Classes, right: Bools, totals: Ints) -> tuple[Floats, Floats]:
    """Sums over the classes present of F1 after each row of the ranking, (n,) each.

    First with the rejected counted as missed, `2 hits / (predictions + all of the class)`, then of the accepted alone,
    `2 hits / (predictions + trues)`.
    """
    macro, inner = np.zeros(len(true)), np.zeros(len(true))
    wrong = np.flatnonzero(~right)
    missing = np.zeros(len(wrong))  # what a wrong row changes at the class that it is
    predicted_rows, missed_rows = _rows_of(predicted, len(totals)), _rows_of(true[wrong], len(totals))
    for total, rows, missed in zip(totals, predicted_rows, missed_rows, strict=True):
        if not total or not len(rows):
            continue
        hit = right[rows]
        hits, predictions = 2 * np.cumsum(hit), np.arange(1, len(rows) + 1)
        macro[rows] = np.diff(hits / (predictions + total), prepend=0.0)
        # The class's events in the order of the ranking: rows predicted as it, and among them those that it missed.
        is_predicted = np.ones(len(rows) + len(missed), dtype=np.bool_)
        is_predicted[np.searchsorted(rows, wrong[missed]) + np.arange(len(missed))] = False
        is_hit = np.zeros(len(is_predicted), dtype=np.bool_)
        is_hit[is_predicted] = hit
        hits, predictions, trues = 2 * np.cumsum(is_hit), np.cumsum(is_predicted), np.cumsum(is_hit | ~is_predicted)
        change = np.diff(hits / (predictions + trues), prepend=0.0)
        inner[rows] = change[is_predicted]
        missing[missed] = change[~is_predicted]
    inner[wrong] += missing
    return np.cumsum(macro, out=macro), np.cumsum(inner, out=inner)


def _rows_of(classes: Classes, count: int) -> list[Ints]:
    """The rows of each class, rising; the sort is a radix sort, because classes are small integers."""
    ends = np.cumsum(np.bincount(classes, minlength=count))
    return np.split(np.argsort(classes, kind="stable"), ends[:-1])


def _mcc(true: Classes, predicted: Classes, last: Ints) -> Floats:
    """Matthews correlation of two classes among the accepted; 0 where labels or predictions are constant."""
    labels, answers, both = (np.cumsum(mask)[last] for mask in (true == 1, predicted == 1, (true & predicted) == 1))
    return binary_matthews(both, labels, answers, last + 1)


def _counted_f1(true: Classes, predicted: Classes, accepted: int, classes: int) -> float:
    """Macro-F1 of the first `accepted` rows with the rest counted as missed, over the classes present."""
    y, p = true[:accepted], predicted[:accepted]
    totals, predictions = np.bincount(true, minlength=classes), np.bincount(p, minlength=classes)
    hits = np.bincount(p[p == y], minlength=classes)
    present = totals > 0
    return float(np.mean(2 * hits[present] / (predictions + totals)[present]))


def _table_row(curve: Curve, scores: Floats, point: float) -> dict[str, float | None]:
    """The curve where the probability threshold is `point`."""
    index = int(np.count_nonzero(scores > log_odds_at(point))) - 1
    if index < 0:
        return {"threshold": point, "coverage": 0.0, "selective_risk": None, "f1_score": 0.0}
    return {
        "threshold": point,
        "coverage": float(curve.coverage[index]),
        "selective_risk": float(curve.selective_risk[index]),
        "f1_score": float(curve.macro_f1[index]),
    }
