"""Phase 2: the rejection threshold, chosen on the exact curve over all thresholds.

The first trainer compared "largest probability > t" with the class label, which means nothing for 13 classes and is
wrong for two. Here the prediction is always the argmax and the threshold only rejects. The default objective is
macro-F1 with the rejected counted as missed; F1 on the accepted alone was rejected because it picks a coverage of a
thousandth. Time O(n log n + nC).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.decisions.curve import Ranking, rank, risk_coverage_areas
from natix_lib.decisions.score import Floats, Ints, check_labels, check_logits, log_odds, predictions
from natix_lib.errors import CalibrationError

OBJECTIVES = ("macro_f1", "coverage_at_risk", "f1_at_coverage", "mcc")
TABLE = tuple(round(0.10 + 0.05 * i, 2) for i in range(17))  # the first trainer's thresholds


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
        table: `{threshold, coverage, selective_risk, f1_score}` at the first trainer's 17 thresholds.
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
        logits: (n, C).
        labels: (n,) in 0..C-1.
        objective: `macro_f1`, rejected counted as missed; `coverage_at_risk`, most coverage with selective risk at
            most `max_risk`; `f1_at_coverage`, best macro-F1 of the accepted with coverage at least `min_coverage`;
            `mcc`, binary only, best MCC of the accepted with coverage at least `min_coverage`.
        max_risk: In (0, 1).
        min_coverage: In (0, 1].

    Raises:
        CalibrationError: If inputs break their rules, the labels or predictions are of one class, or no threshold
            with any coverage meets the objective.
    """
    values = check_logits(logits)
    n, classes = values.shape
    y = check_labels(labels, n, classes)
    predicted = predictions(values)
    require_two_classes(y, predicted)
    if objective not in OBJECTIVES:
        raise CalibrationError(f"sweep objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    if objective == "mcc" and classes != 2:
        raise CalibrationError(f"sweep objective mcc needs 2 classes, got {classes}")
    ranking = rank(log_odds(values), predicted != y)
    curve = _curve(ranking, y, predicted, classes)
    allowed = np.ones(len(curve.accepted), dtype=np.bool_)
    goal = curve.macro_f1
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
    best = np.where(allowed, goal, -np.inf)
    chosen = len(best) - 1 - int(best[::-1].argmax())
    threshold = float(ranking.thresholds[chosen])
    accept_all = threshold == -np.inf
    aurc, augrc = risk_coverage_areas(ranking)
    return ThresholdSweep(
        threshold_logodds=None if accept_all else threshold,
        threshold=0.0 if accept_all else probability(threshold),
        objective=objective,
        value=float(goal[chosen]),
        f1_score=float(curve.macro_f1[chosen]),
        coverage=float(curve.coverage[chosen]),
        selective_risk=float(curve.selective_risk[chosen]),
        n=n,
        n_accepted=int(ranking.ends[chosen]),
        n_errors=int(ranking.errors[chosen]),
        absent_classes=[int(c) for c in np.flatnonzero(np.bincount(y, minlength=classes) == 0)],
        aurc=aurc,
        augrc=augrc,
        table=[_table_row(curve, ranking.scores, point) for point in TABLE],
        curve=curve,
    )


def require_two_classes(labels: Ints, predicted: Ints) -> None:
    """Refuse labels or predictions that are all one class: no policy can be fitted on them.

    Raises:
        CalibrationError: Naming the class.
    """
    if (labels == labels[0]).all():
        raise CalibrationError(f"VAL_CALIB must hold at least two classes, all {len(labels)} labels are {labels[0]}")
    if (predicted == predicted[0]).all():
        raise CalibrationError(
            f"constant prediction: the model says class {predicted[0]} for all {len(labels)} images of VAL_CALIB"
        )


def probability(log_odds_value: float) -> float:
    """The probability of log-odds, in [0, 1]."""
    return float(1.0 / (1.0 + np.exp(-log_odds_value))) if log_odds_value > -700 else 0.0


def _curve(ranking: Ranking, labels: Ints, predicted: Ints, classes: int) -> Curve:
    present = np.flatnonzero(np.bincount(labels, minlength=classes))
    ends = ranking.ends
    y, p = labels[ranking.order], predicted[ranking.order]
    right = y == p
    macro, accepted_f1 = np.zeros(len(ends)), np.zeros(len(ends))
    counts = []
    for c in present:
        hit = np.cumsum(right & (p == c), dtype=np.int64)[ends - 1]
        said = np.cumsum(p == c, dtype=np.int64)[ends - 1]
        true = np.cumsum(y == c, dtype=np.int64)[ends - 1]
        macro += 2 * hit / (said + true[-1])
        accepted_f1 += 2 * hit / np.maximum(said + true, 1)
        counts.append((hit, said, true))
    mcc = None
    if classes == 2 and len(present) == 2:
        (_, said_0, true_0), (hit_1, said_1, true_1) = counts
        product = np.sqrt(said_0.astype(float) * said_1) * np.sqrt(true_0.astype(float) * true_1)
        covariance = hit_1.astype(float) * ends - said_1.astype(float) * true_1
        mcc = np.divide(covariance, product, out=np.zeros(len(ends)), where=product > 0)
    return Curve(
        threshold_logodds=ranking.thresholds,
        accepted=ends,
        coverage=ends / len(labels),
        selective_risk=ranking.errors / ends,
        macro_f1=macro / len(present),
        f1_accepted=accepted_f1 / len(present),
        mcc=mcc,
    )


def _table_row(curve: Curve, scores: Floats, point: float) -> dict[str, float | None]:
    """The curve where the probability threshold is `point`."""
    index = int(np.count_nonzero(scores > np.log(point) - np.log1p(-point))) - 1
    if index < 0:
        return {"threshold": point, "coverage": 0.0, "selective_risk": None, "f1_score": 0.0}
    return {
        "threshold": point,
        "coverage": float(curve.coverage[index]),
        "selective_risk": float(curve.selective_risk[index]),
        "f1_score": float(curve.macro_f1[index]),
    }
