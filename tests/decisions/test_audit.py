import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom

from natix_lib.decisions.audit import audit, log_wealth
from natix_lib.errors import CalibrationError


@pytest.mark.parametrize(("errors", "seen", "alpha"), [(0, 1, 0.05), (3, 20, 0.05), (9, 60, 0.2), (40, 50, 0.5)])
def test_wealth_is_the_mean_likelihood_ratio_over_all_rates_above_alpha(errors: int, seen: int, alpha: float) -> None:
    def ratio(rate: float) -> float:
        return (rate / alpha) ** errors * ((1 - rate) / (1 - alpha)) ** (seen - errors) / (1 - alpha)

    assert np.exp(log_wealth(np.array([errors]), np.array([seen]), alpha)[0]) == pytest.approx(quad(ratio, alpha, 1)[0])


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.3])
def test_wealth_does_not_grow_on_average_where_the_promise_holds(alpha: float) -> None:
    for seen in (1, 5, 40):
        errors = np.arange(seen + 1)
        wealth = np.exp(log_wealth(errors, np.full(seen + 1, seen), alpha))
        assert (wealth * binom.pmf(errors, seen, alpha)).sum() == pytest.approx(1.0)
        assert (wealth * binom.pmf(errors, seen, alpha / 2)).sum() < 1.0


def test_a_promise_that_holds_is_broken_at_any_time_no_more_often_than_level_where_repeated_tests_are() -> None:
    alpha, level, trials, n = 0.05, 0.1, 300, 1000
    generator = np.random.default_rng(0)
    wrong = generator.random((trials, n)) < alpha
    errors = wrong.cumsum(axis=1)
    broken = np.any(log_wealth(errors, np.arange(1, n + 1), alpha) >= -np.log(level), axis=1).sum()
    assert [audit(row, alpha, level).broken_at is not None for row in wrong[:20]].count(True) <= broken
    naive = np.any(binom.sf(errors - 1, np.arange(1, n + 1), alpha) <= level, axis=1).sum()
    most = binom.ppf(0.9999, trials, level)
    assert broken <= most < naive


@pytest.mark.slow
def test_bounds_hold_at_all_times_no_less_often_than_they_say() -> None:
    level, trials = 0.1, 200
    generator = np.random.default_rng(1)
    for risk in (0.02, 0.3):
        results = [audit(generator.random(400) < risk, 0.05, level) for _ in range(trials)]
        most = binom.ppf(0.9999, trials, level)
        assert sum(each.lower > risk for each in results) <= most
        assert sum(each.upper < risk for each in results) <= most


def test_a_promise_that_does_not_hold_is_broken_and_the_bound_says_by_how_much() -> None:
    found = audit(np.random.default_rng(2).random(1000) < 0.15, 0.05, 0.05)
    assert found.broken_at is not None and found.broken_at < 200
    assert 0.05 < found.lower < 0.15 < found.upper < 0.25


def test_what_was_once_shown_stays_shown_whatever_comes_after() -> None:
    wrong = np.concatenate([np.ones(10, dtype=bool), np.zeros(2000, dtype=bool)])
    found = audit(wrong, 0.05, 0.05)
    assert found.broken_at is not None and found.broken_at <= 10 and found.lower >= 0.05


def test_broken_and_the_lower_bound_say_the_same() -> None:
    generator = np.random.default_rng(3)
    for risk in np.linspace(0.03, 0.12, 30):
        found = audit(generator.random(300) < risk, 0.05, 0.05)
        assert (found.broken_at is not None) == (found.lower > 0.05 - 1e-9)


def test_without_images_nothing_is_said() -> None:
    found = audit([], 0.05, 0.05)
    assert (found.n, found.errors, found.broken_at, found.lower, found.upper) == (0, 0, None, 0.0, 1.0)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(CalibrationError, match="truth values"):
        audit([0, 1], 0.05, 0.05)
    with pytest.raises(CalibrationError, match="alpha must be in"):
        audit([True], 0.0, 0.05)
    with pytest.raises(CalibrationError, match="level must be in"):
        audit([True], 0.05, 1.0)
