"""A temperature and an accept rule, from logits and labels that nothing was trained or chosen on.

Prediction sets need rows that neither of the two has seen, so with them half of the groups goes to each; without them
both use all rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.arrays import Bools, Floats, Ints
from natix_lib.decisions.binomial import keeps_with_margin
from natix_lib.decisions.curve import Ranking, rank
from natix_lib.decisions.draws import first_half, independent_rows
from natix_lib.decisions.joint import (
    FALSE_ALARMS,
    MISSES,
    OF_CLASS,
    OF_SLICE,
    OVERALL,
    Asked,
    Kept,
    Outcome,
    certify_jointly,
    offsets,
)
from natix_lib.decisions.policy import ABSTAIN_ALL, ACCEPT_ALL, CLASS_THRESHOLDS, THRESHOLD
from natix_lib.decisions.score import check_groups, check_labels, check_logits, check_mask, has_binary_score
from natix_lib.decisions.score import predictions_and_log_odds as predict
from natix_lib.decisions.selection import (
    Certificate,
    best_start,
    certifiable_alpha,
    certify_selection,
    needed_independent,
)
from natix_lib.decisions.slices import Slice
from natix_lib.decisions.sweep import require_two_classes
from natix_lib.decisions.temperature import TemperatureFit, fit_temperature
from natix_lib.errors import CalibrationError

ON_INFEASIBLE = FAIL, EMPIRICAL, ABSTAIN = ("fail", "empirical", "abstain")


@dataclass(frozen=True)
class Terms:
    """What an accept rule must promise.

    Attributes:
        alpha: Bound on the error rate of the accepted, in (0, 1).
        delta: Probability that not all that is certified holds, in (0, 1).
        on_infeasible: What follows when not all that was asked for is certified: `fail`; the lowest threshold whose
            rows keep to alpha with the margin of `keeps_with_margin`, or accepting nothing where none does
            (`empirical`); or accepting nothing at once (`abstain`).
        spare_half: Leave half of the groups unseen, for prediction sets.
        misses: Bound on the share of true positives that is accepted as negative, in (0, 1]; 1 asks for none.
        false_alarms: Bound on the share of those accepted as positive that is negative, in (0, 1]; 1 asks for none.
        per_class: Bound on the share of those accepted as a class that is of another, in (0, 1]; 1 asks for none.
        per_slice: Bound on the error rate of the accepted of each slice, in (0, 1]; 1 asks for none.
        slices: The slices that it is asked for.
    """

    alpha: float
    delta: float
    on_infeasible: str = EMPIRICAL
    spare_half: bool = False
    misses: float = 1.0
    false_alarms: float = 1.0
    per_class: float = 1.0
    per_slice: float = 1.0
    slices: Sequence[Slice] = ()

    def asked(self, classes: int) -> list[Asked]:
        """The promises that are asked for, the one of all errors first."""
        of_class = [Asked(OF_CLASS, self.per_class, c) for c in range(classes)]
        of_slice = [Asked(OF_SLICE, self.per_slice, of_slice=each) for each in self.slices]
        others = [Asked(MISSES, self.misses), Asked(FALSE_ALARMS, self.false_alarms), *of_class, *of_slice]
        return [Asked(OVERALL, self.alpha), *(each for each in others if each.alpha < 1)]

    def needed(self, classes: int) -> int:
        """The independent rows, or groups, that are needed at least for alpha, none wrong.

        Where it is the only promise, other rows say the start.
        """
        share, alone = self._share(classes)
        return needed_independent(self.alpha, share, alone, self.spare_half)

    def smallest_alpha(self, n: int, classes: int) -> float:
        """The smallest alpha, in (0, 1), that n of them could certify, none wrong."""
        share, alone = self._share(classes)
        return certifiable_alpha(n, share, alone, self.spare_half)

    def _share(self, classes: int) -> tuple[float, bool]:
        promises = len(self.asked(classes))
        return self.delta / promises, promises == 1


@dataclass(frozen=True)
class Rows:
    """Logits and labels of some rows.

    Attributes:
        logits: Finite, (n, C).
        labels: Class number of each row, in 0..C-1, (n,).
        groups: Group of each row, (n,); None takes rows as independent.
        positives: Rows of positive classes that misses are counted on in place of these; None takes these.
        slices: Which rows are in each slice, (n,); a slice that is not here has none of them.
    """

    logits: ArrayLike
    labels: ArrayLike
    groups: ArrayLike | None = None
    slices: Mapping[Slice, ArrayLike] = field(default_factory=dict)
    positives: "Rows | None" = None

    def masks(self, slices: Sequence[Slice], n: int) -> dict[Slice, Bools]:
        """Which of the n rows are in each of these slices, (n,)."""
        none = np.zeros(n, dtype=np.bool_)
        return {each: check_mask(f"slices[{each}]", self.slices.get(each, none), n) for each in slices}


@dataclass(frozen=True)
class Calibration:
    """A temperature and an accept rule.

    Attributes:
        fit: The temperature.
        certificate: What is promised of the accepted.
        mode: One of `policy.MODES`.
        threshold: Accept iff log-odds > this; None unless the mode is `threshold`.
        class_thresholds: The same by predicted class, (C,); None unless the mode is `class_thresholds`.
        promises: What became of each promise where more than one was asked for.
        seen: Rows that the temperature and the rule were fitted on, (n,).
        tested: Numbers of the rows that the certificate counts: those seen, or one of each group of them.
        ranking: The risk of the rows tested at every threshold.
    """

    fit: TemperatureFit
    certificate: Certificate
    mode: str
    threshold: float | None
    seen: Bools
    tested: Ints
    ranking: Ranking
    class_thresholds: Floats | None = None
    promises: Sequence[Kept] = ()


def calibrate(rows: Rows, terms: Terms, select: Rows | None = None, positive: Bools | None = None) -> Calibration:
    """Fit a temperature and certify an accept rule.

    Args:
        rows: What nothing was trained or chosen on.
        terms: What the rule must promise.
        select: Other rows, of the same classes, that may have been chosen on: they say where the test should start, or
            how the thresholds of the classes lie to each other.
        positive: Which classes are positive, (C,); None none.

    Returns:
        The temperature and the rule.

    Raises:
        CalibrationError: If an argument breaks its rule, or no rule can be given and `terms.on_infeasible` is `fail`.
    """
    if terms.on_infeasible not in ON_INFEASIBLE:
        raise CalibrationError(f"on_infeasible must be one of {', '.join(ON_INFEASIBLE)}, got {terms.on_infeasible!r}")
    values = check_logits(rows.logits)
    truth = check_labels(rows.labels, *values.shape)
    group = None if rows.groups is None else check_groups(rows.groups, len(truth))
    predicted, scores = predict(values)
    mask = np.zeros(values.shape[1], dtype=np.bool_) if positive is None else positive
    if min(terms.misses, terms.false_alarms) < 1 and not has_binary_score(mask):
        raise CalibrationError("misses and false_alarms must be 1 where no class is positive, or all are")
    require_two_classes(truth, truth if terms.misses < 1 else predicted)  # who clears alone never needs a positive
    seen = first_half(group, values, truth) if terms.spare_half else np.ones(len(truth), dtype=np.bool_)
    group_seen = None if group is None else group[seen]
    fit = fit_temperature(values[seen], truth[seen], group_seen)
    drawn, _ = independent_rows(group_seen, scores[seen], predicted[seen] != truth[seen])
    tested = np.flatnonzero(seen)[drawn]
    ranking = rank(scores[tested], predicted[tested] != truth[tested])
    other = None if select is None else _outcome(select, values.shape[1], mask, terms.slices)
    slices = {each: rows_in[seen] for each, rows_in in rows.masks(terms.slices, len(truth)).items()}
    outcome = Outcome(scores[seen], predicted[seen], truth[seen], mask, group_seen, slices)
    if rows.positives is not None and not terms.spare_half:  # some of them may be in the half that is spared
        outcome = replace(outcome, positives=_outcome(rows.positives, values.shape[1], mask, ()))
    rule = _jointly if len(terms.asked(values.shape[1])) > 1 else _alone
    certificate, mode, thresholds, promises = rule(outcome, ranking, terms, other)
    threshold = float(thresholds[0]) if mode == THRESHOLD and thresholds is not None else None
    by_class = thresholds if mode == CLASS_THRESHOLDS else None
    return Calibration(fit, certificate, mode, threshold, seen, tested, ranking, by_class, promises)


_Rule = tuple[Certificate, str, Floats | None, Sequence[Kept]]


def _alone(rows: Outcome, ranking: Ranking, terms: Terms, other: Outcome | None) -> _Rule:
    """One threshold, and the one promise of all errors."""
    start = None
    if other is not None:
        n = int(ranking.ends[-1])
        start = best_start(other.scores, other.predicted != other.labels, terms.alpha, terms.delta, n, other.groups)
    wrong = rows.predicted != rows.labels
    certificate = certify_selection(rows.scores, wrong, terms.alpha, terms.delta, rows.groups, start)
    threshold = certificate.threshold
    if threshold is None and terms.on_infeasible == FAIL:
        raise CalibrationError(
            f"zero coverage: {certificate.reason}; more VAL_CALIB images, a larger alpha, or "
            "on_infeasible: empirical or abstain"
        )
    if threshold is None and terms.on_infeasible == EMPIRICAL:
        threshold = _empirical_threshold(ranking, terms.alpha)
        if threshold is None:
            nothing = f"no threshold keeps to alpha {terms.alpha:g} with a margin either, so nothing is accepted"
            certificate = replace(certificate, reason=f"{certificate.reason}; and {nothing}")
    if threshold is None:
        return certificate, ABSTAIN_ALL, None, ()
    if threshold == -np.inf:
        return certificate, ACCEPT_ALL, None, ()
    return certificate, THRESHOLD, np.array([threshold]), ()


def _jointly(rows: Outcome, ranking: Ranking, terms: Terms, other: Outcome | None) -> _Rule:
    """A threshold for each predicted class, and all promises."""
    classes = len(rows.positive)
    asked = terms.asked(classes)
    offset = np.zeros(classes) if other is None else offsets(other, asked, terms.delta)
    joint = certify_jointly(rows, asked, terms.delta, offset, empirical=terms.on_infeasible == EMPIRICAL)
    thresholds, failed = joint.thresholds, [kept for kept in joint.kept if not kept.certified]
    if failed and terms.on_infeasible == FAIL:
        raise CalibrationError(
            f"{failed[0].asked} cannot be promised: {failed[0].reason}; more VAL_CALIB images, a larger bound, or "
            "on_infeasible: empirical or abstain"
        )
    if failed and terms.on_infeasible == ABSTAIN:
        thresholds = None
    overall = joint.kept[0]
    m, k = (overall.m, overall.k) if thresholds is not None else (0, 0)
    certificate = Certificate(
        None, overall.certified, overall.n, m, k, overall.upper_bound, terms.delta / len(asked), overall.unit,
        overall.reason,
    )  # fmt: skip
    return certificate, ABSTAIN_ALL if thresholds is None else CLASS_THRESHOLDS, thresholds, joint.kept


def _outcome(select: Rows, classes: int, positive: Bools, slices: Sequence[Slice]) -> Outcome:
    """Other rows with their predictions."""
    values = check_logits(select.logits)
    if values.shape[1] != classes:
        raise CalibrationError(f"select must have the {classes} classes of rows, got {values.shape[1]}")
    truth = check_labels(select.labels, *values.shape)
    predicted, scores = predict(values)
    groups = None if select.groups is None else check_groups(select.groups, len(truth))
    positives = None if select.positives is None else _outcome(select.positives, classes, positive, ())
    return Outcome(scores, predicted, truth, positive, groups, select.masks(slices, len(truth)), positives)


def _empirical_threshold(ranking: Ranking, alpha: float) -> float | None:
    """The lowest threshold that keeps to alpha with a margin, None where none does; no promise."""
    allowed = np.flatnonzero(keeps_with_margin(ranking.errors, ranking.ends, alpha))
    return float(ranking.thresholds[allowed[-1]]) if len(allowed) else None
