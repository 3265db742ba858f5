import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta, kstest

from natix_lib.decisions import drift
from natix_lib.decisions.drift import LEVELS, LOWEST, Drift, reference_of
from natix_lib.decisions.score import predictions_and_log_odds
from natix_lib.errors import CalibrationError

Values = NDArray[np.float64]


def logits(n: int, generator: np.random.Generator, signal: float = 2.0, steep: float = 1.0) -> Values:
    """Two classes as two unit normals, `signal` apart; log-odds as of a signal of 2, times `steep`."""
    labels = generator.integers(0, 2, n)
    x = steep * 2 * ((2 * labels - 1) * signal / 2 + generator.normal(size=n))
    return np.column_stack([-x / 2, x / 2])


def alarmed_after(
    n: int, shifted: dict[str, float], seed: int, images: int, quiet: int = 0, level: float = 0.01
) -> int:
    """After how many images of a stream the alarm goes on, less the quiet ones; 0 for never."""
    generator = np.random.default_rng(seed)
    test = Drift(reference_of(logits(n, generator)), seed, level)
    rows = np.concatenate([logits(quiet, generator), logits(images, generator, **shifted)])
    for prediction, log_odds in zip(*(each.tolist() for each in predictions_and_log_odds(rows)), strict=True):
        test.observe(log_odds, prediction)
        if test.alarm:
            return test.alarmed_after - quiet
    return 0


def share_of_alarms(n: int, streams: int, images: int, level: float) -> float:
    return sum(alarmed_after(n, {}, seed, images, level=level) != 0 for seed in range(streams)) / streams


def naive_alarm(n: int, seed: int, images: int, level: float) -> bool:
    """The simple jumper on p-values against the reference alone, as if that were the distribution."""
    generator = np.random.default_rng(seed)
    reference = np.sort(predictions_and_log_odds(logits(n, generator))[1])
    stream = predictions_and_log_odds(logits(images, generator))[1]
    slopes, wealth = np.array([-1.0, 0.0, 1.0]), np.full(3, 1 / 3)
    for p in (np.searchsorted(reference, stream) + generator.random(images)) / (n + 1):
        wealth = (0.99 * wealth + 0.01 * wealth.mean()) * (1 + slopes * (p - 0.5))
        if wealth.sum() >= 1 / level:
            return True
    return False


def lower(alarms: int, streams: int) -> float:
    """The exact bound above which the true share is with 99.9 %, given a count (Clopper and Pearson)."""
    return float(beta.ppf(0.001, alarms, streams - alarms + 1)) if alarms else 0.0


def test_p_values_are_uniform_and_independent_however_small_the_reference_is() -> None:
    generator = np.random.default_rng(0)
    rows = []
    for seed in range(3_000):
        values = generator.choice([0.0, 1.0, 5.0], (7, 1), p=[0.5, 0.3, 0.2]) * generator.choice(
            [-1, 1], (7, 1), p=[0.3, 0.7]
        )
        prediction, log_odds = predictions_and_log_odds(np.hstack([np.zeros((7, 1)), values]))
        test = Drift(reference_of(np.hstack([np.zeros((3, 1)), values[:3]])), seed)
        rows.append([test.p_values(log_odds[i], int(prediction[i])) for i in range(3, 7)])
    p = np.array(rows)  # stream, image, game
    for game, image in itertools.product(range(2), range(4)):
        assert kstest(p[:, image, game], "uniform").pvalue > 1e-3
    for game in range(2):
        correlation = np.corrcoef(p[:, :, game], rowvar=False) - np.eye(4)
        assert np.abs(correlation).max() < 4 / np.sqrt(len(p))


def test_a_p_value_is_the_share_of_all_images_so_far_below_it_with_ties_in_part() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=(60, 3)) * 3
    prediction, log_odds = predictions_and_log_odds(values)
    levels = np.floor(log_odds / drift.WIDTH)
    test = Drift(reference_of(values[:20]), seed=5)
    ties = np.random.default_rng(5)
    for i in range(20, 60):
        tie, so_far = ties.random(), slice(None, i + 1)
        expected = [(levels[so_far] < levels[i]).sum() + tie * (levels[so_far] == levels[i]).sum()]
        for c in range(3):
            is_class = prediction[so_far] == c
            below, equal = ((~is_class).sum(), is_class.sum()) if prediction[i] == c else (0, (~is_class).sum())
            expected.append(below + tie * equal)
        assert test.p_values(log_odds[i], int(prediction[i])) == pytest.approx(np.array(expected) / (i + 1))


def test_the_capital_is_fair_and_all_of_it_is_there_at_the_start() -> None:
    """The mean capital of all p-values on a fine grid is what it was before, whatever came before it."""
    grid = (np.arange(200) + 0.5) / 200
    for before in ([], [0.1] * 150, [0.9, 0.2] * 120):
        ends = []
        for last in grid:
            test = Drift({"images": 2, "width": 0.125, "first_level": 0, "counts": [2], "classes": [1, 1]}, 0)
            for p in [*before, last]:
                test._bet(np.array([p, 0.0]))
                test.images += 1
            ends.append(float(test._wealth[0].sum() + drift._waiting((test.images - 1) // drift.BLOCK + 1)))
        test = Drift({"images": 2, "width": 0.125, "first_level": 0, "counts": [2], "classes": [1, 1]}, 0)
        for p in before:
            test._bet(np.array([p, 0.0]))
            test.images += 1
        waits = drift._waiting((len(before) - 1) // drift.BLOCK + 1 if before else 0)
        assert np.mean(ends) == pytest.approx(float(test._wealth[0].sum()) + waits)


def test_parts_of_the_level_sum_to_one_whatever_the_classes() -> None:
    for classes in (2, 3, 13):
        reference = {"images": classes, "width": 0.125, "first_level": 0, "counts": [classes], "classes": [1] * classes}
        assert Drift(reference, 0)._parts.sum() == pytest.approx(1)
    assert drift._waiting(0) == 1


@pytest.mark.parametrize("n", [300, 1_000])
def test_alarms_without_a_shift_are_at_most_the_level(n: int) -> None:
    alarms = round(60 * share_of_alarms(n, 60, 400, level=0.2))
    assert lower(alarms, 60) <= 0.2


@pytest.mark.slow
@pytest.mark.parametrize("n", [300, 1_000, 3_000])
def test_alarms_without_a_shift_are_at_most_the_level_in_long_streams(n: int) -> None:
    alarms = round(100 * share_of_alarms(n, 100, 4_000, level=0.05))
    assert lower(alarms, 100) <= 0.05


@pytest.mark.long
@pytest.mark.parametrize("n", [300, 1_000, 3_000])
def test_alarms_without_a_shift_are_at_most_the_level_ever(n: int) -> None:
    alarms = round(100 * share_of_alarms(n, 100, 20_000, level=0.01))
    assert lower(alarms, 100) <= 0.01


@pytest.mark.slow
def test_a_reference_taken_for_the_truth_breaks_its_level() -> None:
    alarms = sum(naive_alarm(300, seed, 10_000, level=0.01) for seed in range(60))
    assert lower(alarms, 60) > 0.01


@pytest.mark.parametrize("shifted", [{"signal": 1.4}, {"steep": 1.6}], ids=["less signal", "an over-confident camera"])
def test_a_shift_is_found(shifted: dict[str, float]) -> None:
    after = [alarmed_after(3_000, shifted, seed, 1_500) for seed in range(8)]
    assert all(after) and np.median(after) < 700


@pytest.mark.slow
def test_a_small_loss_of_signal_is_found_with_a_large_reference() -> None:
    after = [alarmed_after(10_000, {"signal": 1.7}, seed, 8_000) for seed in range(5)]
    assert sum(map(bool, after)) >= 4


def test_a_shift_after_many_quiet_images_is_found_as_well() -> None:
    after = [alarmed_after(1_000, {"steep": 1.6}, seed, 1_000, quiet=3_000) for seed in range(4)]
    assert all(0 < each < 600 for each in after)


def test_a_change_of_the_classes_alone_is_found() -> None:
    generator = np.random.default_rng(0)
    rows = logits(1_000, generator)
    test = Drift(reference_of(rows), 0)
    log_odds = predictions_and_log_odds(rows)[1].tolist()
    for i in range(400):
        test.observe(log_odds[i], int(i % 5 > 0))
    assert 0 < test.alarmed_after < 300


def test_the_alarm_stays_and_says_so_and_the_capital_stays_where_it_was() -> None:
    test = Drift(reference_of(logits(2_000, np.random.default_rng(0))), 0)
    assert test.sentence == "no drift was seen in 0 images"
    while not test.alarm:
        test.observe(30.0, 1)
    at, capital = test.alarmed_after, test.capital
    assert capital >= 100 and at < 60
    for _ in range(200):
        test.observe(1.0, 0)
    assert (test.alarmed_after, test.capital, test.images) == (at, capital, at + 200)
    assert test.sentence.startswith(f"drift: {at} images showed that they differ from those")


def test_the_same_seed_and_images_give_the_same_capital_and_a_set_is_taken_in_no_order_of_its_own() -> None:
    generator = np.random.default_rng(0)
    rows = logits(600, generator)
    reference = reference_of(rows)
    prediction, log_odds = (each[np.argsort(rows[:, 0])].tolist() for each in predictions_and_log_odds(rows))
    tests = [Drift(reference, 3) for _ in range(3)]
    for test in tests[:2]:
        test.observe_shuffled(log_odds, prediction)
    for pair in zip(log_odds, prediction, strict=True):
        tests[2].observe(*pair)
    assert tests[0].capital == tests[1].capital and not tests[0].alarm
    assert tests[2].alarm  # sorted by the class


def test_a_reference_takes_one_image_of_each_group_in_whatever_order_they_stand() -> None:
    values = logits(300, np.random.default_rng(0))
    reference = reference_of(values, np.arange(300) // 3)
    assert reference["images"] == sum(reference["counts"]) == sum(reference["classes"]) == 100
    order = np.random.default_rng(1).permutation(300)
    assert reference_of(values[order], (np.arange(300) // 3)[order]) == reference


def test_log_odds_out_of_the_levels_are_the_first_level_and_the_last() -> None:
    reference = reference_of(np.array([[0.0, 1e4], [1e4, 0.0]]))
    assert reference["first_level"] == LOWEST + LEVELS - 1 and reference["counts"] == [2]
    test = Drift(reference, 0)
    test.observe(-1e9, 0)
    test.observe(1e9, 1)
    assert test.images == 2


def test_a_level_that_is_none_is_refused() -> None:
    reference = reference_of(np.array([[0.0, 1.0]]))
    with pytest.raises(CalibrationError, match="level must be above 0 and below 1, got 1"):
        Drift(reference, 0, level=1)
    with pytest.raises(CalibrationError, match=r"levels of a reference must be in -64..511, got -65 to -65"):
        Drift({**reference, "first_level": -65}, 0)
