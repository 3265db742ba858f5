"""What probabilities and an accept rule are worth on the rows that they were fitted on: figures, intervals, curves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from natix_lib.arrays import Floats, Ints
from natix_lib.decisions.binomial import upper_risk_bound
from natix_lib.decisions.curve import Ranking, thin
from natix_lib.decisions.intervals import Interval, bootstrap_means
from natix_lib.decisions.metrics import EceTest, brier, classwise_ece, ece, ece_with_null
from natix_lib.decisions.temperature import negative_log_likelihood

SEED = 0  # of the resamples: no decision hangs on it, and no key lets a person look for a kinder one
NLL_SPAN, NLL_POINTS = 4.0, 25  # the plotted temperatures: T/4 to 4 T, and 1


@dataclass(frozen=True)
class Judgement:
    """How far probabilities can be believed.

    Attributes:
        nll: Negative log-likelihood of each row, nats, (n,).
        brier: Brier score of each row, (n,).
        ece: Expected calibration error of the largest probability, beside what chance would show.
        ece_equal_mass: The same error with bins of equally many rows, in [0, 1].
        ece_classwise: Mean over the classes of each one's calibration error, in [0, 1].
    """

    nll: Floats
    brier: Floats
    ece: EceTest
    ece_equal_mass: float
    ece_classwise: float


def judge_probabilities(probabilities: Floats, nll: Floats, predicted: Ints, labels: Ints, resamples: int) -> Judgement:
    """Judge probabilities.

    Args:
        probabilities: Rows that sum to 1, (n, C).
        nll: Negative log-likelihood of each row, nats, (n,).
        predicted: Predicted class number of each row, (n,).
        labels: True class number of each row, (n,).
        resamples: Resamples behind what a calibrated model would show.

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    confidence, right = probabilities.max(axis=1), predicted == labels
    return Judgement(
        nll,
        brier(probabilities, labels),
        ece_with_null(confidence, right, resamples, SEED),
        ece(confidence, right, equal_mass=True),
        classwise_ece(probabilities, labels),
    )


def change_intervals(
    before: Judgement, after: Judgement, groups: ArrayLike | None, resamples: int
) -> tuple[Interval | None, Interval | None]:
    """95 % intervals of the mean of after minus before, of NLL and of the Brier score.

    Args:
        before: What is compared with, row by row.
        after: What is judged.
        groups: Group of each row, (n,), which are resampled whole; None resamples rows.
        resamples: Resamples behind an interval.

    Returns:
        The interval of each; None where there can be none.
    """
    differences = np.stack([after.nll - before.nll, after.brier - before.brier], axis=1)
    drawn = np.arange(len(differences)) if groups is None else groups
    nll, squared = bootstrap_means(differences, drawn, resamples, SEED)
    return nll, squared


@dataclass(frozen=True)
class BoundedCurve:
    """Points of a risk-coverage curve, by rising coverage, each (p,).

    Attributes:
        coverage: Share of the rows that is accepted, in (0, 1].
        risk: Share of the accepted that is wrong.
        bound: Upper bound on the risk at the confidence spent on one test.
    """

    coverage: Floats
    risk: Floats
    bound: Floats


def bounded_curve(ranking: Ranking, delta: float, accepted: int) -> BoundedCurve:
    """The tested curve, thinned for a plot.

    Args:
        ranking: The risk of the rows tested at every threshold.
        delta: Probability, spent on one test, that a bound does not hold, in (0, 1).
        accepted: Rows of those tested that the policy accepts, which become a point; 0 for none.
    """
    rows = thin(ranking.ends, accepted)
    ends, errors = ranking.ends[rows], ranking.errors[rows]
    bounds = [upper_risk_bound(int(k), int(m), delta) for k, m in zip(errors, ends, strict=True)]
    return BoundedCurve(ends / ranking.ends[-1], errors / ends, np.array(bounds))


def nll_around(logits: ArrayLike, labels: ArrayLike, temperature: float) -> tuple[Floats, Floats]:
    """Temperatures around a fitted one and at 1, rising, and the mean NLL at each in nats, (p,) both."""
    around = temperature * np.geomspace(1 / NLL_SPAN, NLL_SPAN, NLL_POINTS)
    temperatures: Floats = np.unique(np.append(around, 1.0))
    return temperatures, np.array([negative_log_likelihood(logits, labels, t).mean() for t in temperatures])
