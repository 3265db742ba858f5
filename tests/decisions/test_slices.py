"""Promises of named slices: a pool of rows is the exact distribution, so what is true of a rule is counted."""

from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from natix_lib.decisions.calibration import Rows, Terms, calibrate
from natix_lib.decisions.joint import MISSES, OF_SLICE, OVERALL, Asked, Joint, Outcome, certify_jointly, offsets
from natix_lib.decisions.score import predictions_and_log_odds
from natix_lib.decisions.slices import MOST_VALUES, Slice, Tags
from natix_lib.errors import CalibrationError

POOL, DELTA = 40_000, 0.1
RAIN, NIGHT, SNOW = Slice("weather", "rain"), Slice("time", "night"), Slice("weather", "snow")
OF_RAIN, OF_NIGHT = Asked(OF_SLICE, 0.15, of_slice=RAIN), Asked(OF_SLICE, 0.12, of_slice=NIGHT)
SINGLY = (Asked(OVERALL, 0.1), OF_RAIN)
JOINTLY = (Asked(OVERALL, 0.1), Asked(MISSES, 0.2), OF_RAIN, OF_NIGHT)


@cache
def pool(ties: bool = False) -> Outcome:
    """Half positive; every fourth row in rain, every third at night, both at times, and rain makes many more errors."""
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 2, POOL)
    rain, night = generator.random(POOL) < 0.25, generator.random(POOL) < 0.33
    signal = 3.2 - 2.0 * rain - 0.6 * night
    logits = generator.normal(size=(POOL, 2)) + signal[:, None] * np.eye(2)[labels]
    predicted, scores = predictions_and_log_odds(np.round(logits) if ties else logits)
    return Outcome(scores, predicted, labels, np.array([False, True]), None, {RAIN: rain, NIGHT: night})


def drawn(of: Outcome, rows: np.ndarray, groups: np.ndarray | None = None) -> Outcome:
    slices = {name: mask[rows] for name, mask in of.slices.items()}
    return Outcome(of.scores[rows], of.predicted[rows], of.labels[rows], of.positive, groups, slices)


def truth(of: Outcome, asked: Asked, thresholds: np.ndarray | None) -> bool:
    """Whether a promise is true in the pool."""
    if thresholds is None:
        return True
    accepted, wrong = of.scores > thresholds[of.predicted], of.predicted != of.labels
    if asked.kind == MISSES:
        return bool((accepted & wrong & (of.labels == 1)).sum() <= asked.alpha * (of.labels == 1).sum())
    among = accepted if asked.of_slice is None else accepted & of.slices[asked.of_slice]
    return bool((wrong & among).sum() <= asked.alpha * among.sum())


def is_false(of: Outcome, joint: Joint) -> bool:
    return any(kept.certified and not truth(of, kept.asked, joint.thresholds) for kept in joint.kept)


@pytest.mark.parametrize("n", [300, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ties", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("asked", [SINGLY, JOINTLY])
def test_what_is_certified_of_slices_holds_together_with_the_rest(asked: tuple[Asked, ...], ties: bool, n: int) -> None:
    broken = certified = 0
    for trial in range(200):
        generator = np.random.default_rng([n, trial])
        rows, other = (drawn(pool(ties), generator.integers(0, POOL, n)) for _ in range(2))
        offset = offsets(other, asked, DELTA) if n > 300 else np.zeros(2)
        joint = certify_jointly(rows, asked, DELTA, offset, empirical=True)
        broken += is_false(pool(ties), joint)
        certified += joint.kept[-1].certified
    assert broken <= binom.ppf(0.9999, 200, DELTA) and certified > 0


@pytest.mark.long
@pytest.mark.parametrize("asked", [SINGLY, JOINTLY])
@pytest.mark.parametrize("ties", [False, True])
def test_what_is_certified_of_slices_holds_in_2000_trials(asked: tuple[Asked, ...], ties: bool) -> None:
    broken = 0
    for trial in range(2000):
        rows = drawn(pool(ties), np.random.default_rng([1, trial]).integers(0, POOL, 400))
        broken += is_false(pool(ties), certify_jointly(rows, asked, DELTA, np.zeros(2), empirical=True))
    assert broken <= binom.ppf(0.9999, 2000, DELTA)


def test_a_bound_on_all_errors_alone_is_no_bound_of_a_bad_slice() -> None:
    broken = 0
    for trial in range(50):
        rows = drawn(pool(), np.random.default_rng([2, trial]).integers(0, POOL, 1000))
        alone = certify_jointly(rows, [Asked(OVERALL, 0.1)], DELTA, np.zeros(2))
        assert alone.kept[0].certified
        broken += not truth(pool(), OF_RAIN, alone.thresholds)
    assert broken > 45


@pytest.mark.slow
def test_frames_of_a_drive_count_once_in_each_slice() -> None:
    """Twenty frames of each of 150 drives, alike but for the last digits; without the groups the promises are void."""
    broken = told = 0
    for trial in range(60):
        generator = np.random.default_rng([3, trial])
        whole = drawn(pool(), generator.integers(0, POOL, 150).repeat(20))
        for groups in (None, np.arange(150).repeat(20)):
            scores = whole.scores + generator.normal(0, 1e-6, 3000)
            rows = Outcome(scores, whole.predicted, whole.labels, whole.positive, groups, whole.slices)
            false = is_false(pool(), certify_jointly(rows, JOINTLY, DELTA, np.zeros(2)))
            broken, told = broken + (false and groups is None), told + (false and groups is not None)
    assert told <= binom.ppf(0.9999, 60, DELTA) < broken


@pytest.mark.parametrize("frames", [1, 4])
def test_a_slice_is_counted_on_its_own_rows_one_of_each_of_its_groups(frames: int) -> None:
    rows = drawn(pool(), np.arange(4000), np.arange(4000) // frames)
    joint = certify_jointly(rows, SINGLY, DELTA, np.zeros(2))
    kept, rain = joint.kept[1], rows.slices[RAIN]
    assert kept.certified and kept.unit == "group" and joint.thresholds is not None
    assert kept.n == len(set((np.arange(4000) // frames)[rain])) < joint.kept[0].n
    accepted = rain & (rows.scores > joint.thresholds[rows.predicted])
    if frames == 1:
        assert (kept.m, kept.k) == (accepted.sum(), (accepted & (rows.predicted != rows.labels)).sum())
    assert kept.upper_bound is not None and kept.k / kept.m < kept.upper_bound <= 0.15


def test_a_slice_with_too_few_rows_is_named_with_what_it_needs_and_the_rest_holds() -> None:
    rows = drawn(pool(), np.arange(3000))
    few = Outcome(
        rows.scores, rows.predicted, rows.labels, rows.positive, None, {**rows.slices, SNOW: np.arange(3000) < 9}
    )
    joint = certify_jointly(few, [*SINGLY, Asked(OF_SLICE, 0.15, of_slice=SNOW)], DELTA, np.zeros(2))
    overall, rain, snow = joint.kept
    assert overall.certified and rain.certified and not snow.certified
    assert snow.reason == "needs at least 21 images that it speaks of at alpha 0.15, delta 0.0333, has 9"
    assert 0.85**21 <= DELTA / 3 < 0.85**20


def test_a_sample_of_rows_keeps_each_in_its_slices() -> None:
    rows = drawn(pool(), np.arange(1000)).every(7)
    assert np.array_equal(rows.slices[RAIN], pool().slices[RAIN][:1000:7])


@pytest.mark.parametrize("spare_half", [False, True])
def test_calibrate_promises_what_terms_ask_of_slices(spare_half: bool) -> None:
    generator = np.random.default_rng(0)
    labels, rain = generator.integers(0, 2, 3000), generator.random(3000) < 0.3
    logits = generator.normal(size=(3000, 2)) + (4 - 2 * rain)[:, None] * np.eye(2)[labels]
    terms = Terms(0.1, 0.1, "fail", spare_half, per_slice=0.2, slices=(RAIN,))
    result = calibrate(Rows(logits, labels, None, {RAIN: rain}), terms, Rows(logits, labels))
    assert [str(kept.asked) for kept in result.promises] == ["overall", "slice weather=rain"]
    assert result.promises[1].n == rain[result.seen].sum()
    with pytest.raises(
        CalibrationError, match=r"slice weather=rain cannot be promised: needs at least 14 images .*has 0"
    ):
        calibrate(Rows(logits, labels), terms)
    with pytest.raises(
        CalibrationError, match=r"slices\[weather=rain\] must have 3000 rows as what it goes with, got 2999"
    ):
        calibrate(Rows(logits, labels, None, {RAIN: rain[1:]}), terms)


def test_each_slice_takes_its_share_of_delta() -> None:
    """At alpha .05: 59 rows at half of .1, 67 at a third."""
    assert [Terms(0.05, 0.1, per_slice=0.2, slices=(RAIN, NIGHT)[:many]).needed(2) for many in (1, 2)] == [59, 67]
    assert 0.95**59 <= 0.1 / 2 < 0.95**58 and 0.95**67 <= 0.1 / 3 < 0.95**66


WEATHER: dict[str, list[str | None]] = {
    "weather": ["sun", "rain", None, "rain"],
    "time=zone": ["a", "a", "a", "b=c"],
    "place": list("wxyz"),
}


def test_a_tag_stands_for_each_value_of_any_role_and_a_value_for_itself() -> None:
    tags = Tags.of(WEATHER, 4, {"weather": ["snow", None], "other": ["x", "y"]})
    assert tags.slices(["weather"]) == [Slice("weather", value) for value in ("rain", "snow", "sun")]
    assert tags.slices(["weather=rain", "weather=snow", "weather=rain"]) == [RAIN, SNOW]
    assert tags.slices(["time=zone=b=c"]) == [Slice("time=zone", "b=c")]
    assert tags.slices(["time=zone"]) == [Slice("time=zone", "a"), Slice("time=zone", "b=c")]
    assert tags.mask(RAIN).tolist() == [False, True, False, True]
    assert not tags.mask(SNOW).any() and not tags.mask(NIGHT).any()
    assert tags.mask(Slice("time=zone", "b=c")).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("wether", "slices must name tags of the data, or tag=value, known are place, weather; got 'wether'"),
        ("weather=rane", "slices must name values that weather has, known are rain, sun; got 'weather=rane'"),
        ("id=3", f"slices must name tags of at most {MOST_VALUES} values, 'id' has more"),
        ("id", f"slices must name tags of at most {MOST_VALUES} values, 'id' has more"),
    ],
)
def test_an_unknown_slice_is_one_line_with_the_known_ones(asked: str, message: str) -> None:
    rows = MOST_VALUES + 1
    columns: dict[str, list[str | None]] = {
        "weather": ["sun", "rain", *[None] * (rows - 2)],
        "place": ["w"] * rows,
        "id": list(map(str, range(rows))),
    }
    with pytest.raises(CalibrationError) as error:
        Tags.of(columns, rows).slices([asked])
    assert str(error.value) == message


def test_of_many_known_names_some_are_listed() -> None:
    columns: dict[str, list[str | None]] = {"place": [f"p{number:02}" for number in range(40)]}
    with pytest.raises(CalibrationError, match=r"known are p00, p01, .*, p11 and 28 more; got 'place=x'"):
        Tags.of(columns, 40).slices(["place=x"])
