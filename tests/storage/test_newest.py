"""What is written beside a computation, into Cloud Storage that comes and goes."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from natix_lib import repeats, storage
from natix_lib.errors import StorageError
from natix_lib.repeats import Away
from natix_lib.storage.newest import NewestWriter
from tests.cloud_storage import Cloud
from tests.storage.places import contents


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def nothing() -> None:
    pass


def test_while_a_store_is_away_nothing_waits_and_the_newest_is_what_it_gets(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(repeats, "ELSEWHERE", 0.1)
    cloud.failures, tidied = 10**9, []
    writer = NewestWriter(lambda: tidied.append(1))
    writer.put("gs://street/1", b"one")
    until(lambda: cloud.failures < 10**9)
    for number in (2, 3):
        writer.put(f"gs://street/{number}", bytes(number))
    assert not writer.settle(0.5)  # the store is away for several times as long as a request is repeated for
    cloud.failures = 0
    assert writer.settle(20) and writer.written == "gs://street/3" and tidied
    assert cloud.holds("3") and not cloud.holds("2")
    writer.check()
    said = capsys.readouterr()
    assert "warning: gs://street/2 was not written: gs://street/3 takes its place" in said.out
    assert "the work goes on, and it or a newer one is written when the store is back" in said.out
    assert "gs://street/3 could not be written in 0 s" in said.out and "; trying again" in said.err


def test_a_place_that_refuses_from_the_first_is_told_and_one_that_refuses_later_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    writer = NewestWriter(nothing)
    writer.put(str(tmp_path / "file" / "1"), b"one")
    assert writer.settle(20)
    with pytest.raises(StorageError, match="Not a directory"):
        writer.check()
    writer = NewestWriter(nothing)
    writer.put(str(tmp_path / "1"), b"one")
    assert writer.settle(20)
    writer.put(str(tmp_path / "file" / "2"), b"two")
    assert writer.settle(20)
    writer.check()
    assert contents(tmp_path) == {"file": b"", "1": b"one"}
    assert capsys.readouterr().out.splitlines()[-1].endswith("Not a directory; the work goes on")


def test_the_last_file_of_a_process_that_ends_does_not_wait_for_the_one_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    released, begun, written = threading.Event(), threading.Event(), []

    def write_file(uri: str, content: bytes) -> None:
        if uri == "slow":
            begun.set()
            released.wait(20)
        written.append(uri)

    monkeypatch.setattr(storage, "write_file", write_file)
    writer = NewestWriter(nothing)
    writer.put("slow", b"1")
    assert begun.wait(20)
    writer.put("last", b"2")
    writer.write_now("last", b"2", 20)
    assert written == ["last"]
    writer.write_now("slow", b"1", 0.05)  # it is in hand, and is not begun once more
    assert "slow could not be written in 0 s" in capsys.readouterr().out
    released.set()
    until(lambda: written == ["last", "slow"])


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN])
def test_a_volume_that_is_away_is_waited_for_as_a_bucket_is(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = iter([OSError(number, os.strerror(number))])

    def fsync(descriptor: int) -> None:
        for failure in failures:
            raise failure

    monkeypatch.setattr(os, "fsync", fsync)
    writer = NewestWriter(nothing)
    writer.put(str(tmp_path / "1"), b"one")
    assert writer.settle(20)
    writer.check()
    assert contents(tmp_path) == {"1": b"one"}
    assert f"{os.strerror(number)}; the work goes on, and it or a newer one" in capsys.readouterr().out


def test_an_error_of_ours_is_never_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(storage, "write_file", broken)
    writer = NewestWriter(nothing)
    writer.put("anywhere", b"")
    assert writer.settle(20)
    with pytest.raises(ValueError, match="a bug"):
        writer.check()


def test_old_files_that_cannot_be_removed_are_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def away() -> None:
        raise Away("the store is away")

    writer = NewestWriter(away)
    writer.put(str(tmp_path / "1"), b"one")
    assert writer.settle(20) and writer.written == str(tmp_path / "1")
    writer.check()
