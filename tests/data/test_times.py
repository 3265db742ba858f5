from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from natix_lib.data.times import days_alone, seconds

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "after_noon"),
    [
        ("2024-05-01T12:00:00", 0),
        ("2024-05-01 12:00:00.25Z", 0.25),
        ("2024-05-01T12:00:00,5+02:00", 0.5 - 7200),
        ("2024-05-01T12:00-0330", 12600),
        ("2024-05-01T12", None),
        ("20240501T120001Z", 1),
        ("20240501120001", 1),
        ("2024:05:01 12:00:00", 0),
        (str(int(NOON)), 0),
        (f"{NOON + 1.5}", 1.5),
        (str(int(NOON * 1000) + 250), 0.25),
        (str(int(NOON * 1_000_000) + 500_000), 0.5),
        (str(int(NOON) * 1_000_000_000), 0),
        ("2024-02-30 10:00:00", None),
        ("2024-05-01 24:00:00", None),
        ("1970-01-01T00:00:00", None),
        ("0000:00:00 00:00:00", None),
        ("2024-05-01", None),
        ("noon", None),
        ("17", None),
        (None, None),
    ],
)
def test_each_way_to_write_a_time(text: str | None, after_noon: float | None) -> None:
    expected = np.nan if after_noon is None else NOON + after_noon
    assert seconds([text, None])[0] == pytest.approx(expected, nan_ok=True, abs=1e-6)


def test_times_are_those_of_python() -> None:
    random = np.random.default_rng(0)
    times = [datetime(1971, 1, 1, tzinfo=UTC) + timedelta(seconds=float(s)) for s in random.uniform(0, 4e9, 300)]
    assert seconds([time.isoformat() for time in times]) == pytest.approx(
        [time.timestamp() for time in times], abs=1e-5
    )


def test_a_day_is_told_from_what_cannot_be_read() -> None:
    texts = ["2024-05-01", "2024:05:01", "20240501", "2024-05-01 10:00", "noon", None]
    assert days_alone(texts).tolist() == [True, True, True, False, False, False]


def test_a_compact_date_with_hour_and_minute_is_no_number_of_milliseconds() -> None:
    hours = seconds(["202405011200", "202405011300"])
    assert hours[1] - hours[0] == 3600
