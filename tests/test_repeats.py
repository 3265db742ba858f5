import threading
import time
from contextvars import ContextVar, copy_context

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


def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Real seconds between attempts, and a clock that goes on by them at once; gives what was waited."""
    now, waits = [0.0], []

    class Never(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waits.append(timeout)
            now[0] += timeout
            return False

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(repeats, "STOP", ContextVar("STOP", default=Never()))  # noqa: B039
    monkeypatch.setattr(repeats, "FIRST", 1.0)
    monkeypatch.setattr(repeats, "LONGEST", 30.0)
    return waits


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
    waits = clock(monkeypatch)
    service = Service(1000, Away("away"))
    with pytest.raises(Away):
        repeated(service, 100)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 9] and service.asked == len(waits) + 1
    assert repeated(Service(0, Away("away")), 0) == "content"


def test_the_time_begins_anew_when_more_has_been_received(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = clock(monkeypatch)
    service = Service(8, Away("cut"))
    assert repeated(service, 10, received=lambda: service.asked // 4) == "content"
    assert waits == [1, 2, 4, 1, 2, 4, 3, 1]
    with pytest.raises(Away):
        repeated(Service(5, Away("cut")), 10, received=lambda: 7)


def test_who_has_ended_does_not_wait_and_says_nothing_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(repeats, "FIRST", 30.0)
    stop, service, began = threading.Event(), Service(9, Away("away")), time.monotonic()
    context = copy_context()
    context.run(repeats.STOP.set, stop)
    threading.Timer(0.1, stop.set).start()
    for _ in range(2):
        with pytest.raises(Away):
            context.run(repeated, service, 60)
    assert service.asked == 2 and time.monotonic() - began < 20
    assert capsys.readouterr().err == "away; trying again\n"


def test_a_line_of_waiting_holds_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    repeated(Service(1, Away("cannot connect by http://user:word@proxy:3128 with hf_abcdefghijklmnopqrstu")))
    assert capsys.readouterr().err == "cannot connect by http://***@proxy:3128 with hf_***; trying again\n"


def test_in_a_cluster_nobody_waits_so_it_is_repeated_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in repeats.CLUSTERS:
        monkeypatch.delenv(name, raising=False)
    assert limit() == repeats.ELSEWHERE
    for name in repeats.CLUSTERS:
        with monkeypatch.context() as pod:
            pod.setenv(name, "10.0.0.1")
            assert limit() == repeats.IN_CLUSTER == 600
