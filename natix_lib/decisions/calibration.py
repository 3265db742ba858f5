"""A temperature and an accept rule, from logits and labels that nothing was trained or chosen on.

Prediction sets need rows that neither of the two has seen, so with them half of the groups goes to each; without them
both use all rows.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.arrays import Bools, Ints
from natix_lib.decisions.curve import Ranking, rank
from natix_lib.decisions.draws import first_half, independent_rows
from natix_lib.decisions.policy import ABSTAIN_ALL, ACCEPT_ALL, THRESHOLD
from natix_lib.decisions.score import check_groups, check_labels, check_logits
from natix_lib.decisions.score import predictions_and_log_odds as predict
from natix_lib.decisions.selection import (
    Certificate,
    best_start,
    certifiable_alpha,
    certify_selection,
    needed_independent,
)
from natix_lib.decisions.sweep import require_two_classes
from natix_lib.decisions.temperature import TemperatureFit, fit_temperature
from natix_lib.errors import CalibrationError

ON_INFEASIBLE = FAIL, EMPIRICAL, ABSTAIN = ("fail", "empirical", "abstain")


@dataclass(frozen=True)
class Terms:
    """What an accept rule must promise.

    Attributes:
        alpha: Bound on the error rate of the accepted, in (0, 1).
        delta: Probability that the bound does not hold, in (0, 1).
        on_infeasible: What follows when nothing is certified: `fail`; the lowest threshold whose rows keep to alpha
            with the margin of `_empirical_threshold`, or accepting nothing where none does (`empirical`); or accepting
            nothing at once (`abstain`).
        spare_half: Leave half of the groups unseen, for prediction sets.
    """

    alpha: float
    delta: float
    on_infeasible: str = EMPIRICAL
    spare_half: bool = False

    def needed(self) -> int:
        """The independent rows, or groups, that are needed at least, none wrong, where other rows say the start."""
        return needed_independent(self.alpha, self.delta, True, self.spare_half)

    def smallest_alpha(self, n: int) -> float:
        """The smallest alpha, in (0, 1), that n of them could certify, none wrong."""
        return certifiable_alpha(n, self.delta, True, self.spare_half)


@dataclass(frozen=True)
class Rows:
    """Logits and labels of some rows.

    Attributes:
        logits: Finite, (n, C).
        labels: Class number of each row, in 0..C-1, (n,).
        groups: Group of each row, (n,); None takes rows as independent.
    """

    logits: ArrayLike
    labels: ArrayLike
    groups: ArrayLike | None = None


@dataclass(frozen=True)
class Calibration:
    """A temperature and an accept rule.

    Attributes:
        fit: The temperature.
        certificate: What is promised of the accepted.
        mode: One of `policy.MODES`.
        threshold: Accept iff log-odds > this; None unless the mode is `threshold`.
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


def calibrate(rows: Rows, terms: Terms, select: Rows | None = None) -> Calibration:
    """Fit a temperature and certify an accept rule.

    Args:
        rows: What nothing was trained or chosen on.
        terms: What the rule must promise.
        select: Other rows, of the same classes, that may have been chosen on: they say where the test should start.

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
    require_two_classes(truth, predicted)
    wrong = predicted != truth
    seen = first_half(group, values, truth) if terms.spare_half else np.ones(len(truth), dtype=np.bool_)
    group_seen = None if group is None else group[seen]
    fit = fit_temperature(values[seen], truth[seen], group_seen)
    drawn, _ = independent_rows(group_seen, scores[seen], wrong[seen])
    tested = np.flatnonzero(seen)[drawn]
    start = None if select is None else _start(select, values.shape[1], len(tested), terms)
    certificate = certify_selection(scores[seen], wrong[seen], terms.alpha, terms.delta, group_seen, start)
    ranking = rank(scores[tested], wrong[tested])
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
    mode = ABSTAIN_ALL if threshold is None else THRESHOLD
    if threshold == -np.inf:
        mode, threshold = ACCEPT_ALL, None
    return Calibration(fit, certificate, mode, threshold, seen, tested, ranking)


def _start(select: Rows, classes: int, n: int, terms: Terms) -> float:
    """Where a chain over n rows should start, by other rows."""
    values = check_logits(select.logits)
    if values.shape[1] != classes:
        raise CalibrationError(f"select must have the {classes} classes of rows, got {values.shape[1]}")
    truth = check_labels(select.labels, *values.shape)
    predicted, scores = predict(values)
    return best_start(scores, predicted != truth, terms.alpha, terms.delta, n, select.groups)


def _empirical_threshold(ranking: Ranking, alpha: float) -> float | None:
    """The lowest threshold that keeps to alpha with a margin, None where none does; no promise.

    The margin is one error, as if the next row were wrong, and a standard deviation of the errors counted: the largest
    number of rows that happens to keep to alpha is one that keeps to it by luck.
    """
    errors = ranking.errors + np.sqrt(ranking.errors) + 1
    allowed = np.flatnonzero(errors / (ranking.ends + 1) <= alpha)
    return float(ranking.thresholds[allowed[-1]]) if len(allowed) else None
