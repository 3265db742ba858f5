import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import brier_score_loss

from natix_lib.decisions.metrics import bootstrap_means, brier, classwise_ece, ece, ece_with_null, group_weights


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
    found = ece_with_null(confidence, generator.random(200) < confidence, 500)
    assert found.null_mean == pytest.approx(0.053, abs=0.03)  # not 0: why no percentile interval is given
    overconfident = ece_with_null(np.full(200, 0.95), generator.random(200) < 0.7, 500)
    assert overconfident.p_value < 0.01 and overconfident.value > overconfident.null_high


def test_groups_are_drawn_whole() -> None:
    number, draws = group_weights(["a", "b", "a", "c"], 50, 0)
    assert number.tolist() == [0, 1, 0, 2]
    assert draws.shape == (50, 3) and (draws.sum(axis=1) == 3).all()


def test_the_interval_is_wider_when_rows_of_a_group_agree() -> None:
    values = np.repeat(np.random.default_rng(0).normal(0, 1, 40), 10)
    ((low, high),) = bootstrap_means(values[:, None], np.repeat(np.arange(40), 10), 500, 0)
    ((row_low, row_high),) = bootstrap_means(values[:, None], np.arange(400), 500, 0)
    assert high - low > 2 * (row_high - row_low)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        values = np.repeat(generator.normal(0, 1, 60), 3) + generator.normal(0, 0.3, 180)
        ((low, high),) = bootstrap_means(values[:, None], np.repeat(np.arange(60), 3), 300, seed, confidence=0.9)
        hits += low <= 0 <= high
    assert 0.83 < hits / 200 < 0.96


def test_columns_share_their_draws_so_that_differences_are_paired() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(0, 1, 200)
    columns = np.stack([a, 2 * a, a + 3], axis=1)
    one, double, moved = bootstrap_means(columns, np.arange(200) // 2, 200, 0)
    assert double == pytest.approx((2 * one[0], 2 * one[1])) and moved == pytest.approx((one[0] + 3, one[1] + 3))


def test_the_null_band_is_the_spread_of_a_binomial() -> None:
    found = ece_with_null(np.full(400, 0.8), np.arange(400) < 320, 4000)
    (only,) = found.reliability
    assert (only["n"], only["confidence"], only["accuracy"]) == (400, pytest.approx(0.8), 0.8)
    low, high = binom.ppf([0.025, 0.975], 400, 0.8) / 400
    assert only["null_low"] == pytest.approx(low, abs=0.0051) and only["null_high"] == pytest.approx(high, abs=0.0051)
