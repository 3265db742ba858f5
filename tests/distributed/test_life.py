"""Marks of those who wait, and what nodes make of them; a minute is a tenth of a second here."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from natix_lib import storage
from natix_lib.distributed import life
from natix_lib.distributed.life import ABANDONED, LOOKS, WAITING, Waiting, end_when_abandoned, is_abandoned
from natix_lib.errors import StorageError
from natix_lib.stopping import stoppable
from tests.processes import PATIENCE

BEAT = 0.1
ROOT = Path(__file__).parent.parent.parent
KILLED = f"""import os, signal, sys
from natix_lib.distributed import life
life.BEAT_SECONDS = {BEAT}
with life.Waiting(sys.argv[1]):
    print("waiting", flush=True)
    signal.pause()
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "BEAT_SECONDS", BEAT)


def marks(uri: Path) -> list[str]:
    return [name for name in storage.file_names(f"{uri}/{WAITING}") if not name.startswith(".")]


def wait_until_abandoned() -> float:
    """Seconds until SIGTERM comes."""
    begun = time.monotonic()
    with stoppable(), pytest.raises(SystemExit):
        while time.monotonic() - begun < PATIENCE:
            time.sleep(BEAT)
    return time.monotonic() - begun


def test_a_mark_changes_with_every_beat_and_goes_with_who_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "BEAT_SECONDS", 5 * BEAT)
    with Waiting(str(tmp_path)) as first, Waiting(str(tmp_path)) as second:
        before = marks(tmp_path)
        assert len(before) == 2 and first.others() | second.others() == {mark.partition(".")[0] for mark in before}
        assert first.living() == first.others() != second.others()
        while set(marks(tmp_path)) & set(before):
            time.sleep(BEAT)
        second.end()
        waiting = {mark.partition(".")[0] for mark in marks(tmp_path)}  # a beat has two marks for a moment
        assert not first.others() and not first.living() and len(waiting) == 1
    assert not marks(tmp_path)


def test_who_waits_is_seen_at_every_look_while_its_mark_changes(tmp_path: Path) -> None:
    with Waiting(str(tmp_path)) as beating:
        over = threading.Event()

        def beat() -> None:
            while not over.is_set():
                beating._beat()

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            looks = [Waiting(str(tmp_path)).others() for _ in range(500)]
        finally:
            over.set()
            thread.join()
    assert all(looks)


def test_a_mark_that_stands_still_is_nobodys_in_the_end_and_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "BEAT_SECONDS", BEAT / 5)
    storage.write_file(f"{tmp_path}/{WAITING}/killed.mark", b"")
    alive = Waiting(str(tmp_path))
    with alive:
        assert alive.others() == {"killed"}
        alive.remove_dead()
        assert "killed.mark" in marks(tmp_path)  # not known to be dead yet
    begun = time.monotonic()
    assert not alive.living() and not alive.others()
    assert time.monotonic() - begun > (LOOKS - 2) * BEAT / 5
    alive.remove_dead()
    assert not marks(tmp_path)


@pytest.mark.slow
def test_nodes_end_when_the_launcher_was_killed_and_not_while_it_lives(tmp_path: Path) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert launcher.stdout and launcher.stdout.readline() == b"waiting\n"
    abandoned = end_when_abandoned(str(tmp_path))
    time.sleep(3 * LOOKS * BEAT)
    assert not abandoned.is_set()
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    assert wait_until_abandoned() >= (LOOKS - 2) * BEAT
    assert abandoned.is_set() and is_abandoned(str(tmp_path)) and marks(tmp_path)


def test_a_node_that_starts_again_ends_at_once_when_nobody_waits(tmp_path: Path) -> None:
    storage.write_file(f"{tmp_path}/{ABANDONED}", b"")
    with Waiting(str(tmp_path)), stoppable(), pytest.raises(SystemExit):
        assert end_when_abandoned(str(tmp_path)).wait(PATIENCE)
        time.sleep(PATIENCE)


@pytest.mark.slow
def test_a_store_that_is_away_says_nothing_of_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def away(uri: str) -> list[str]:
        looks.append(uri)
        if len(looks) < 2 * LOOKS:
            raise StorageError(f"{uri} cannot be reached")
        return []

    monkeypatch.setattr(storage, "file_names", away)
    end_when_abandoned(str(tmp_path))
    wait_until_abandoned()
    assert sum(WAITING in uri for uri in looks) == LOOKS + 1
