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
from natix_lib.decisions.score import check_groups, check_labels, check_logits, log_odds_at
from natix_lib.decisions.score import predictions_and_log_odds as predict
from natix_lib.decisions.selection import Certificate, certifiable_alpha, certify_selection, needed_independent
from natix_lib.decisions.sweep import require_two_classes
from natix_lib.decisions.temperature import TemperatureFit, fit_temperature
from natix_lib.errors import CalibrationError

ON_INFEASIBLE = FAIL, EMPIRICAL, ABSTAIN = ("fail", "empirical", "abstain")


@dataclass(frozen=True)
class Terms:
    """What an accept rule must promise, and how it is looked for.

    Attributes:
        alpha: Bound on the error rate of the accepted, in (0, 1).
        delta: Probability that the bound does not hold, in (0, 1).
        procedure: One of `selection.PROCEDURES`.
        grid: Probabilities that the procedure `grid` tests, in (0, 1); empty takes its own.
        on_infeasible: What follows when nothing is certified: `fail`; the lowest threshold whose rows keep to alpha,
            or accepting nothing where none does (`empirical`); or accepting nothing at once (`abstain`).
        spare_half: Leave half of the groups unseen, for prediction sets.
    """

    alpha: float
    delta: float
    procedure: str = "ltt"
    grid: tuple[float, ...] = ()
    on_infeasible: str = EMPIRICAL
    spare_half: bool = False

    def thresholds(self) -> list[float] | None:
        """The grid on the log-odds; None takes the procedure's own."""
        return [log_odds_at(probability) for probability in self.grid] or None

    def needed(self) -> int:
        """The independent rows, or groups, that are needed at least, none of them wrong."""
        return needed_independent(self.alpha, self.delta, self.procedure, self.thresholds(), self.spare_half)

    def smallest_alpha(self, n: int) -> float:
        """The smallest alpha, in (0, 1), that n of them could certify, none wrong."""
        return certifiable_alpha(n, self.delta, self.procedure, self.thresholds(), self.spare_half)


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


def calibrate(logits: ArrayLike, labels: ArrayLike, groups: ArrayLike | None, terms: Terms) -> Calibration:
    """Fit a temperature and certify an accept rule.

    Args:
        logits: Finite, (n, C), of rows that nothing was trained or chosen on.
        labels: Class number of each row, in 0..C-1, (n,).
        groups: Group of each row, (n,); None takes rows as independent.
        terms: What the rule must promise.

    Returns:
        The temperature and the rule.

    Raises:
        CalibrationError: If an argument breaks its rule, or no rule can be given and `terms.on_infeasible` is `fail`.
    """
    if terms.on_infeasible not in ON_INFEASIBLE:
        raise CalibrationError(f"on_infeasible must be one of {', '.join(ON_INFEASIBLE)}, got {terms.on_infeasible!r}")
    values = check_logits(logits)
    truth = check_labels(labels, *values.shape)
    group = None if groups is None else check_groups(groups, len(truth))
    predicted, scores = predict(values)
    require_two_classes(truth, predicted)
    wrong = predicted != truth
    seen = first_half(group, values, truth) if terms.spare_half else np.ones(len(truth), dtype=np.bool_)
    group_seen = None if group is None else group[seen]
    fit = fit_temperature(values[seen], truth[seen], group_seen)
    certificate = certify_selection(
        scores[seen],
        wrong[seen],
        terms.alpha,
        terms.delta,
        group_seen,
        terms.procedure,
        terms.thresholds(),
    )
    rows, _ = independent_rows(group_seen, scores[seen], wrong[seen])
    tested = np.flatnonzero(seen)[rows]
    threshold = certificate.threshold
    if threshold is None and terms.on_infeasible == FAIL:
        raise CalibrationError(
            f"zero coverage: {certificate.reason}; more VAL_CALIB images, a larger alpha, or "
            "on_infeasible: empirical or abstain"
        )
    if threshold is None and terms.on_infeasible == EMPIRICAL:
        threshold = _empirical_threshold(rank(scores[seen], wrong[seen]), terms.alpha)
        if threshold is None:
            nothing = f"no threshold has an observed risk of at most alpha {terms.alpha:g}, so nothing is accepted"
            certificate = replace(certificate, reason=f"{certificate.reason}; and {nothing}")
    mode = ABSTAIN_ALL if threshold is None else THRESHOLD
    if threshold == -np.inf:
        mode, threshold = ACCEPT_ALL, None
    return Calibration(fit, certificate, mode, threshold, seen, tested, rank(scores[tested], wrong[tested]))


def _empirical_threshold(ranking: Ranking, alpha: float) -> float | None:
    """The lowest threshold whose accepted rows keep to alpha; None where none does."""
    allowed = np.flatnonzero(ranking.errors / ranking.ends <= alpha)
    return float(ranking.thresholds[allowed[-1]]) if len(allowed) else None
