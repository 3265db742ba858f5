import time

import pytest

from natix_lib import repeats
from natix_lib.errors import StorageError
from natix_lib.repeats import Away, limit, repeated


class Service:
    """Fails so many times with an error."""

    def __init__(self, times: int, error: StorageError) -> None:
        self.times, self.error, self.asked = times, error, 0

    def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self.times:
            raise self.error
        return "content"


def test_what_passes_is_waited_out_with_a_line_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service(3, Away("gs://street/a: 503\nof the\x1b[31m service"))
    assert repeated(service) == "content" and service.asked == 4
    shown = capsys.readouterr()
    assert shown.err == 3 * "gs://street/a: 503 of the\\x1b[31m service; trying again\n" and not shown.out


def test_a_verdict_is_raised_at_once() -> None:
    service = Service(3, StorageError("no rights"))
    with pytest.raises(StorageError, match="no rights"):
        repeated(service)
    assert service.asked == 1


def test_waits_double_up_to_the_longest_and_the_last_attempt_is_made_when_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(repeats, "FIRST", 1.0)
    monkeypatch.setattr(repeats, "LONGEST", 30.0)
    service = Service(1000, Away("away"))
    with pytest.raises(Away):
        repeated(service, 100)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 9] and service.asked == len(waits) + 1
    assert repeated(Service(0, Away("away")), 0) == "content"


def test_in_a_cluster_nobody_waits_so_it_is_repeated_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in repeats.CLUSTERS:
        monkeypatch.delenv(name, raising=False)
    assert limit() == repeats.ELSEWHERE
    for name in repeats.CLUSTERS:
        with monkeypatch.context() as pod:
            pod.setenv(name, "10.0.0.1")
            assert limit() == repeats.IN_CLUSTER == 600
