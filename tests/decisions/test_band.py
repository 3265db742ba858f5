"""The walk, its staircase and the chain, against counts by hand, scipy's binomial and simulated walks."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from natix_lib.decisions.band import band, chain, crossing, first_ranks, sharp_ranks, staircase
from natix_lib.decisions.binomial import is_certified, most_errors
from natix_lib.decisions.curve import rank


def crossing_by_count(ranks: list[int], allowed: list[int], alpha: Fraction) -> Fraction:
    """Exactly, a row at a time."""
    alive, crossed = {0: Fraction(1)}, Fraction(0)
    for m in range(1, ranks[-1] + 1):
        after: dict[int, Fraction] = {}
        for errors, share in alive.items():
            after[errors] = after.get(errors, Fraction(0)) + share * (1 - alpha)
            after[errors + 1] = after.get(errors + 1, Fraction(0)) + share * alpha
        if m in ranks:
            most = allowed[ranks.index(m)]
            crossed += sum((share for errors, share in after.items() if errors <= most), Fraction(0))
            after = {errors: share for errors, share in after.items() if errors > most}
        alive = after
    return crossed


@pytest.mark.parametrize(("n", "alpha", "level"), [(60, 0.1, 0.05), (120, 0.25, 0.02), (40, 0.5, 0.3)])
def test_the_chance_that_a_walk_is_ever_under_the_staircase_is_a_count_in_fractions(
    n: int, alpha: float, level: float
) -> None:
    ranks, allowed = sharp_ranks(n, alpha, level)
    assert len(ranks) > 1
    expected = crossing_by_count(ranks.tolist(), allowed.tolist(), Fraction(alpha))
    assert crossing(ranks, allowed, alpha) == pytest.approx(float(expected), rel=1e-9)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(0, 5000), st.floats(0.001, 0.9), st.floats(1e-6, 0.9))
def test_a_sharp_rank_is_the_first_that_scipys_binomial_passes(errors: int, alpha: float, level: float) -> None:
    (m,) = first_ranks(np.array([errors]), alpha, level)
    assert binom.cdf(errors, m, alpha) <= level * (1 + 1e-9)
    assert m == errors + 1 or binom.cdf(errors, m - 1, alpha) > level * (1 - 1e-9)


def test_simulated_walks_are_under_the_staircase_as_often_as_delta_allows() -> None:
    for n, delta in ((100, 0.1), (2000, 0.05)):
        generator, trials = np.random.default_rng(n), 10_000
        walks = (generator.random((trials, n)) < 0.05).cumsum(axis=1, dtype=np.int32)
        under = (walks <= staircase(n, 0.05, delta).at(np.arange(1, n + 1))).any(axis=1).sum()
        low, high = (float(binom.ppf(q, trials, delta)) for q in (0.0001, 0.9999))
        assert low - 0.05 * delta * trials <= under <= high


def test_the_levels_are_those_of_the_source() -> None:
    """At alpha .05, delta .1: delta/1.48 at 100 rows, /2.97 at 300, /5.5 at 1,000; 53 right rows suffice."""
    for n, factor in ((100, 1.48), (300, 2.97), (1000, 5.5)):
        assert 0.1 / staircase(n, 0.05, 0.1).level == pytest.approx(factor, rel=0.06)
    assert staircase(100, 0.05, 0.1).ranks[0] == 53
    assert staircase(52, 0.05, 0.1).ranks.tolist() == [45]  # a single test has all of delta
    assert staircase(44, 0.05, 0.1).at(np.array([1, 44])).tolist() == [-1, -1]


@pytest.mark.parametrize(("n", "alpha", "delta"), [(5000, 0.05, 0.1), (1_000_000, 0.05, 0.02), (3000, 0.5, 0.9)])
def test_a_staircase_of_some_of_the_steps_spends_delta_and_is_never_above_the_test_of_its_level(
    n: int, alpha: float, delta: float
) -> None:
    stairs = staircase(n, alpha, delta)
    assert 0.94 * delta <= crossing(stairs.ranks, stairs.allowed, alpha) <= delta
    at = np.unique(np.geomspace(1, n, 50).astype(int))
    assert all(most_errors(int(m), alpha, stairs.level) >= k for m, k in zip(at, stairs.at(at), strict=True))


def test_the_band_certifies_behind_a_bad_top() -> None:
    scores, errors = -np.arange(1000.0), np.zeros(1000)
    errors[:30] = 1  # the most confident ones
    ranking = rank(scores, errors)
    assert band(ranking, 0.1, 0.1)[0] == 999 and chain(ranking, 0.1, 0.1, 22) is None


def plain_chain(errors: np.ndarray, alpha: float, delta: float, start: int) -> int | None:
    """Rank by rank as it is defined, without ties: the last sharp rank that passes of those from the start on."""
    n, counts = len(errors), np.cumsum(errors)
    allowed = [most_errors(m, alpha, delta) for m in range(n + 1)]
    sharp = [m for m in range(1, n + 1) if allowed[m] > allowed[m - 1]]
    tested = [m for m in sharp if m > start]
    tested = [*[m for m in sharp if m <= start][-1:], *tested]
    passed = None
    for m in [*tested, *([n] if tested and tested[-1] < n else [])]:
        if counts[m - 1] > allowed[m]:
            break
        passed = m
    return passed


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.integers(1, 700),
    st.floats(0.02, 0.5),
    st.floats(0.02, 0.5),
    st.floats(0.0, 4.0),
    st.integers(0, 10**6),
    st.data(),
)
def test_a_chain_is_the_plain_walk_over_the_sharp_ranks(
    n: int, alpha: float, delta: float, worse: float, seed: int, data: st.DataObject
) -> None:
    place = np.arange(n) / n
    errors = np.random.default_rng(seed).random(n) < alpha * np.where(place < 0.4, 0.2, worse)  # passes, then fails
    start = data.draw(st.integers(1, n))
    index = chain(rank(-np.arange(float(n)), errors), alpha, delta, start)
    assert (None if index is None else index + 1) == plain_chain(errors, alpha, delta, start)


def test_a_chain_tests_the_end_of_a_tie_that_a_sharp_rank_lies_in() -> None:
    scores = np.repeat([3.0, 2.0, 1.0], [30, 10, 60])
    index = chain(rank(scores, np.zeros(100)), 0.1, 0.1, 25)
    assert index == 2
    errors = np.r_[np.zeros(30), np.ones(5), np.zeros(65)]
    index = chain(rank(scores, errors), 0.1, 0.1, 25)
    assert index == 0 and is_certified(0, 30, 0.1, 0.1) and not is_certified(5, 40, 0.1, 0.1)
