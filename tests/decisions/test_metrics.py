import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import brier_score_loss

from natix_lib.decisions.metrics import brier, classwise_ece, ece, ece_with_null


def test_brier_is_the_squared_distance_to_the_label() -> None:
    generator = np.random.default_rng(0)
    p = rows(generator, 100, 2)
    labels = generator.integers(0, 2, 100)
    assert brier(p, labels).mean() == pytest.approx(2 * brier_score_loss(labels, p[:, 1]))


def rows(generator: np.random.Generator, n: int, classes: int) -> np.ndarray:
    return generator.dirichlet(np.ones(classes), n)


def test_ece_of_a_case_counted_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    right = np.array([1, 1, 1, 0, 0, 1])
    assert ece(confidence, right, bins=10) == pytest.approx((4 * 0.20 + 2 * 0.05) / 6)
    assert ece(confidence, right, bins=2, equal_mass=True) == pytest.approx(
        (abs(0.55 + 0.55 + 0.95 - 2) + abs(3 * 0.95 - 2)) / 6
    )
    assert ece(np.array([1.0, 1.0]), [1, 1]) == 0.0


def test_classwise_ece_is_the_mean_over_classes() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert classwise_ece(p, np.array([0, 1])) == pytest.approx(0.15)


def test_a_calibrated_model_lies_in_its_null_and_an_overconfident_one_outside() -> None:
    generator = np.random.default_rng(1)
    confidence = generator.uniform(0.5, 1, 200)
    p_values = [ece_with_null(confidence, generator.random(200) < confidence, 200, seed).p_value for seed in range(60)]
    assert 0.35 < np.mean(p_values) < 0.65
    test = ece_with_null(confidence, generator.random(200) < confidence, 500)
    assert test.null_mean == pytest.approx(0.053, abs=0.03)  # not 0: why no percentile interval is given
    overconfident = ece_with_null(np.full(200, 0.95), generator.random(200) < 0.7, 500)
    assert overconfident.p_value < 0.01 and overconfident.value > overconfident.null_high


def test_the_null_band_is_the_spread_of_a_binomial() -> None:
    test = ece_with_null(np.full(400, 0.8), np.arange(400) < 320, 4000)
    (only,) = test.reliability
    assert (only["n"], only["confidence"], only["accuracy"]) == (400, pytest.approx(0.8), 0.8)
    low, high = (binom.ppf(tail, 400, 0.8) / 400 for tail in (0.025, 0.975))
    assert only["null_low"] == pytest.approx(low, abs=0.0051) and only["null_high"] == pytest.approx(high, abs=0.0051)
