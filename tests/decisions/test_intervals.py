import numpy as np
import pytest
from scipy.stats import binomtest

from natix_lib.decisions.intervals import (
    bootstrap_means,
    group_weights,
    percentile_interval,
    share_interval,
    wider,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 9), (9, 9), (0, 400), (1, 30), (7, 30), (30, 30)])
def test_images_that_are_groups_of_their_own_have_the_exact_interval_or_a_wider_one(hits: int, n: int) -> None:
    low, high = share_interval((np.arange(n) < hits).astype(float), np.ones(n), 0.95)
    exact = binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert low <= exact.low + 1e-9 and high >= exact.high - 1e-9
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.02)


def test_none_wrong_of_nine_is_no_certainty() -> None:
    low, high = share_interval(np.zeros(9), np.ones(9), 0.95)
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 9))  # .336


def test_a_single_group_says_as_much_as_a_single_image() -> None:
    assert share_interval([0.0], [1000.0], 0.95) == pytest.approx((0.0, 0.975))


def test_large_groups_count_for_their_size() -> None:
    """Of 1,000 images 900 are one drive: as much as 1.2 groups, not nine."""
    _, high = share_interval(np.zeros(9), [900, *[12.5] * 8], 0.95)
    assert high > 0.9


def test_a_difference_lies_in_its_range_and_its_interval_too() -> None:
    low, high = share_interval([-3.0, 2, 0, 1], [5.0, 5, 5, 5], 0.9, least=-1.0)
    assert -1 <= low < 0 < high <= 1
    assert share_interval(np.zeros(20), np.full(20, 4.0), 0.95, least=-1.0)[0] < -0.1  # nothing seen is not nothing


def coverage(p: float, groups: int, likeness: float, trials: int) -> float:
    """How often the interval holds the true share, of groups of uneven sizes whose rows are alike to a degree."""
    generator = np.random.default_rng([groups, round(1000 * p), round(10 * likeness)])
    hits = 0
    for _ in range(trials):
        sizes = 1 + generator.geometric(1 / 8, groups)
        shares = np.full(groups, p)
        if likeness == 1:
            shares = (generator.random(groups) < p).astype(float)
        elif likeness and p:
            scale = (1 - likeness) / likeness
            shares = generator.beta(p * scale, (1 - p) * scale, groups)
        low, high = share_interval(generator.binomial(sizes, shares).astype(float), sizes, 0.95)
        hits += low <= p <= high
    return hits / trials


@pytest.mark.parametrize("groups", [9, 30, 200])
@pytest.mark.parametrize("p", [0.0, 0.01, 0.1, 0.5])
def test_the_interval_of_a_share_holds_it_as_often_as_it_says(p: float, groups: int) -> None:
    assert coverage(p, groups, 0.4, 200) >= 0.95 - 4 * np.sqrt(0.05 * 0.95 / 200)


@pytest.mark.slow
@pytest.mark.parametrize("likeness", [0.0, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("groups", [9, 30, 200])
@pytest.mark.parametrize("p", [0.0, 0.01, 0.1, 0.5])
def test_the_interval_of_a_share_holds_it_in_at_least_93_of_100(p: float, groups: int, likeness: float) -> None:
    assert coverage(p, groups, likeness, 1500) >= 0.93


@pytest.mark.parametrize("gain", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("groups", [9, 60])
def test_the_interval_of_a_difference_holds_it_as_often_as_it_says(gain: float, groups: int) -> None:
    hits, worth = 0, [(0.3 - gain) / 2, 0.7, (0.3 + gain) / 2]
    generator = np.random.default_rng(groups)
    for _ in range(400):
        sizes = 1 + generator.geometric(1 / 8, groups)
        sums = generator.multinomial(sizes, worth) @ np.array([-1.0, 0, 1])
        low, high = share_interval(sums, sizes, 0.95, least=-1.0)
        hits += low <= gain <= high
    assert hits / 400 >= 0.93


def test_resamples_that_agree_and_few_groups_give_no_interval() -> None:
    assert percentile_interval(np.full(500, 0.8), 100, 0.95) is None
    assert percentile_interval(np.linspace(0, 1, 500), 9, 0.95) is None
    assert percentile_interval(np.array([]), 100, 0.95) is None
    assert percentile_interval(np.array([np.nan, *np.linspace(0, 1, 101)]), 10, 0.9) == pytest.approx((0.05, 0.95))
    assert bootstrap_means(np.zeros((50, 1)), np.arange(50), 100, 0) == [None]


def test_the_wider_holds_both() -> None:
    assert wider((0.1, 0.4), (0.2, 0.5)) == (0.1, 0.5) and wider((0.1, 0.4), None) == (0.1, 0.4)


def test_groups_are_drawn_whole() -> None:
    number, draws = group_weights(["a", "b", "a", "c"], 50, 0)
    assert number.tolist() == [0, 1, 0, 2]
    assert draws.shape == (50, 3) and (draws.sum(axis=1) == 3).all()


def test_the_interval_is_wider_when_rows_of_a_group_agree() -> None:
    values = np.repeat(np.random.default_rng(0).normal(0, 1, 40), 10)
    (of_groups,) = bootstrap_means(values[:, None], np.repeat(np.arange(40), 10), 500, 0)
    (of_rows,) = bootstrap_means(values[:, None], np.arange(400), 500, 0)
    assert of_groups and of_rows and np.ptp(of_groups) > 2 * np.ptp(of_rows)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        values = np.repeat(generator.normal(0, 1, 60), 3) + generator.normal(0, 0.3, 180)
        (interval,) = bootstrap_means(values[:, None], np.repeat(np.arange(60), 3), 300, seed, confidence=0.9)
        assert interval
        hits += interval[0] <= 0 <= interval[1]
    assert 0.83 < hits / 200 < 0.96


def test_columns_share_their_draws_so_that_differences_are_paired() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(0, 1, 200)
    columns = np.stack([a, 2 * a, a + 3], axis=1)
    one, double, moved = bootstrap_means(columns, np.arange(200) // 2, 200, 0)
    assert (
        one and double == pytest.approx((2 * one[0], 2 * one[1])) and moved == pytest.approx((one[0] + 3, one[1] + 3))
    )
