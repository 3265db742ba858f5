import numpy as np
import pytest
from scipy.stats import binomtest

from natix_lib.decisions.observed import observe, share

POSITIVE = np.array([False, True])


def test_misses_and_false_alarms_are_those_of_a_count_by_hand() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    prediction = np.array([1, 0, 0, 1, 1, 0, 0, 1, 0, 0])
    accepted = np.array([1, 1, 0, 0, 1, 1, 1, 0, 1, 1], dtype=bool)
    seen = observe(prediction, labels, accepted, POSITIVE, None, 100)
    assert (seen.risk.n, seen.risk.k) == (7, 2)
    assert seen.missed and (seen.missed.n, seen.missed.k, seen.missed.value) == (4, 1, 0.25)
    assert seen.false_alarms and (seen.false_alarms.n, seen.false_alarms.k, seen.false_alarms.value) == (2, 1, 0.5)
    assert not seen.large_groups_err_more and seen.group_risk == pytest.approx(2 / 7)


def test_rows_that_are_their_own_groups_have_scipys_exact_interval() -> None:
    hits = np.arange(200) % 10 == 0
    mine = share(hits, np.ones(200, dtype=bool), np.arange(200))
    exact = binomtest(20, 200).proportion_ci(0.95)
    assert (mine.n, mine.k, mine.value) == (200, 20, 0.1)
    assert (mine.low, mine.high) == (pytest.approx(exact.low, abs=0.003), pytest.approx(exact.high, abs=0.003))


def test_frames_of_few_groups_make_an_interval_wider() -> None:
    hits, rows = np.arange(200) % 10 == 0, np.ones(200, dtype=bool)
    alone, framed = share(hits, rows, np.arange(200)), share(hits[np.argsort(~hits)], rows, np.arange(200) // 10)
    assert alone.high is not None and framed.high is not None and framed.high > alone.high + 0.03


def test_without_a_row_there_is_no_share_and_without_positive_classes_no_miss() -> None:
    nothing = np.zeros(6, dtype=bool)
    labels = np.arange(6) % 2
    seen = observe(labels, labels, nothing, POSITIVE, None, 10)
    assert (seen.risk.value, seen.group_risk, seen.large_groups_err_more) == (None, None, False)
    assert seen.missed and seen.missed.k == 0 and seen.false_alarms and seen.false_alarms.value is None
    seen = observe(labels, labels, ~nothing, np.zeros(2, dtype=bool), None, 10)
    assert seen.missed is None and seen.false_alarms is None


def drives(large: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """400 groups, one in twenty of 60 images, the others of one; 3 % errors in small groups, `large` in large ones."""
    generator = np.random.default_rng(seed)
    sizes = np.where(np.arange(400) % 20 == 0, 60, 1)
    groups = np.repeat(np.arange(400), sizes)
    return groups, generator.random(len(groups)) < np.where(sizes[groups] > 1, large, 0.03)


def test_large_groups_that_err_more_are_told_and_those_that_do_not_are_not() -> None:
    told = []
    for large in (0.25, 0.03):
        wrong = 0
        for seed in range(20):
            groups, errors = drives(large, seed)
            labels = np.zeros(len(groups), dtype=np.int64)
            rows = np.ones(len(groups), dtype=bool)
            wrong += observe(errors.astype(np.int64), labels, rows, POSITIVE, groups, 200).large_groups_err_more
        told.append(wrong)
    assert told[0] == 20 and told[1] <= 5
