from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from natix_lib.decisions import log_odds, sweep_thresholds
from natix_lib.decisions.score import softmax
from natix_lib.errors import CalibrationError


def noisy(n: int, classes: int, seed: int = 0, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose argmax is right for most rows; rounded to make ties."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    logits = generator.normal(0, 1, (n, classes))
    logits[np.arange(n), labels] += 1.5
    return (logits if decimals is None else logits.round(decimals)), labels


def by_hand(logits: np.ndarray, labels: np.ndarray, threshold: float) -> tuple[float, float, float, float]:
    """Coverage, risk, macro-F1 with rejected missed, and macro-F1 of the accepted, the slow way."""
    accepted = log_odds(logits) > threshold
    prediction = logits.argmax(axis=1)
    shown = np.where(accepted, prediction, -1)
    present = sorted(set(labels.tolist()))
    f1 = f1_score(labels, shown, labels=present, average="macro", zero_division=0)
    inner = f1_score(labels[accepted], prediction[accepted], labels=present, average="macro", zero_division=0)
    return accepted.mean(), (prediction != labels)[accepted].mean(), f1, inner


@pytest.mark.parametrize(("classes", "decimals"), [(2, None), (2, 0), (5, None), (5, 0)])
def test_every_point_of_the_curve_is_what_counting_gives(classes: int, decimals: int | None) -> None:
    logits, labels = noisy(120, classes, decimals=decimals)
    curve = sweep_thresholds(logits, labels).curve
    assert (np.diff(curve.accepted) > 0).all() and curve.accepted[-1] == 120
    for i, threshold in enumerate(curve.threshold_logodds):
        point = (curve.coverage[i], curve.selective_risk[i], curve.macro_f1[i], curve.f1_accepted[i])
        assert point == pytest.approx(by_hand(logits, labels, threshold))


@pytest.mark.slow
def test_the_chosen_threshold_is_the_best_of_all() -> None:
    logits, labels = noisy(300, 4)
    sweep = sweep_thresholds(logits, labels)
    best = max(by_hand(logits, labels, t)[2] for t in [-np.inf, *log_odds(logits)[:-1]] if (log_odds(logits) > t).any())
    assert sweep.f1_score == pytest.approx(best)


def test_mcc_is_that_of_the_accepted() -> None:
    logits, labels = noisy(200, 2)
    curve = sweep_thresholds(logits, labels, "mcc").curve
    assert curve.mcc is not None
    for i in (len(curve.mcc) // 2, len(curve.mcc) - 1):
        rows = log_odds(logits) > curve.threshold_logodds[i]
        assert curve.mcc[i] == pytest.approx(matthews_corrcoef(labels[rows], logits.argmax(1)[rows]))


def test_coverage_at_risk_takes_the_most_coverage_that_keeps_the_risk() -> None:
    logits, labels = noisy(400, 3)
    sweep = sweep_thresholds(logits, labels, "coverage_at_risk", max_risk=0.1)
    assert sweep.selective_risk <= 0.1
    curve = sweep.curve
    assert not (curve.selective_risk[curve.coverage > sweep.coverage] <= 0.1).any()


@pytest.mark.parametrize("objective", ["f1_at_coverage", "mcc"])
def test_a_least_coverage_is_kept(objective: str) -> None:
    logits, labels = noisy(400, 2)
    assert sweep_thresholds(logits, labels, objective, min_coverage=0.6).coverage >= 0.6


def test_the_table_holds_the_first_trainers_thresholds_on_the_probability() -> None:
    logits, labels = noisy(300, 3)
    top = softmax(logits).max(axis=1)
    table = sweep_thresholds(logits, labels).table
    assert [row["threshold"] for row in table] == pytest.approx(np.arange(0.1, 0.95, 0.05))
    for row in table:
        assert row["coverage"] == pytest.approx((top > row["threshold"]).mean())


def test_a_random_score_has_the_error_rate_as_aurc_and_half_of_it_as_augrc() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1, (20_000, 2))
    labels = np.where(generator.random(20_000) < 0.3, 1 - logits.argmax(1), logits.argmax(1))
    sweep = sweep_thresholds(logits, labels)
    assert sweep.aurc == pytest.approx(0.3, abs=0.015)
    assert sweep.augrc == pytest.approx(0.15, abs=0.008)


def test_tied_rows_are_accepted_together_and_their_errors_spread() -> None:
    logits = np.array([[2.0, 0]] * 3 + [[0, 2.0]])
    sweep = sweep_thresholds(logits, [0, 0, 1, 1])
    assert sweep.curve.accepted.tolist() == [4]
    assert sweep.aurc == pytest.approx(0.25)
    assert (sweep.threshold, sweep.threshold_logodds, sweep.coverage) == (0.0, None, 1.0)


def test_an_absent_class_is_listed_and_left_out_of_the_mean() -> None:
    logits, labels = noisy(200, 3)
    labels = np.where(labels == 2, 1, labels)
    sweep = sweep_thresholds(logits, labels)
    assert sweep.absent_classes == [2]
    assert sweep.curve.macro_f1[-1] == pytest.approx(f1_score(labels, logits.argmax(1), labels=[0, 1], average="macro"))


@pytest.mark.parametrize(
    ("logits", "labels", "options", "message"),
    [
        (np.eye(2), [1, 1], {}, "at least two classes, all 2 labels are 1"),
        ([[2.0, 1], [3, 1], [3, 1]], [0, 1, 1], {}, "constant prediction: the model says class 0 for all 3 images"),
        (
            [[2.0, 1], [1, 3]],
            [1, 0],
            {"objective": "coverage_at_risk"},
            "zero coverage: no threshold has a selective risk of at most 0.05, the lowest is 1.0000",
        ),
        (np.eye(3), [0, 1, 2], {"objective": "mcc"}, "mcc needs 2 classes, got 3"),
        (np.eye(2), [0, 1], {"objective": "f2"}, "must be one of macro_f1, .* got 'f2'"),
    ],
)
def test_what_allows_no_threshold_is_an_error(logits: Any, labels: list, options: dict, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        sweep_thresholds(logits, labels, **options)
