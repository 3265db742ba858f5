"""The sign of life of those who wait for a TrainJob, by which its nodes see that nobody does any more.

A launcher that is killed can delete nothing, and its job would compute for nobody. So everyone who waits keeps a mark
in the job's folder of `hardware.shared_root`: an empty object below `waiting/`, called `WHO.BEAT`, that gets another
BEAT every minute. One listing shows all marks, and a look needs no clock but its own: what has not changed in
`LOOKS` looks a minute apart is over, whatever the time is on other machines. A store that is away is no look at all.
WHO is new for every process: a run's name would be that of two equal tasks of it, and of a launcher that comes back
from a lost node. So the mark of one that was killed is not taken over, it becomes old.

Who removes the folder keeps such a mark too, below `removing/`. It leaves that one and then looks for who waits; who
comes leaves its own and then looks for who removes: one of the two at least sees the other.

A node that finds the marks so leaves `abandoned` in the folder, so that the others, and its own container when it
starts again, end as well. They end with exit code 0: any other one would start the container again.

Rejected: times of objects, which a bucket tells and a volume's clock may not; asking the Kubernetes API, for which a
node would need rights.
"""

import contextlib
import os
import signal
import threading
import time
import uuid
from types import TracebackType

from natix_lib import storage
from natix_lib.errors import StorageError
from natix_lib.progress import WARNING

WAITING, REMOVING = "waiting", "removing"  # below a job's folder: the marks of those who do
ABANDONED = "abandoned"  # in it: says that nobody waits any more
BEAT_SECONDS = 60.0
JOIN_SECONDS = 5.0  # that a mark under way is waited for; one that comes later is over in ten minutes
LOOKS = 10  # with BEAT_SECONDS ten minutes, in which a launcher that was killed can be tried again


class Waiting:
    """One who waits for a job: its mark is there within the block, and goes with it unless the process is killed.

    Others' marks may be looked at before.
    """

    def __init__(self, uri: str, kind: str = WAITING) -> None:
        """Wait for the job of the folder `uri`; or remove it, if `kind` is REMOVING."""
        self._uri = f"{uri}/{kind}"
        self._who = uuid.uuid4().hex
        self._looks: dict[str, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> "Waiting":
        """Leave the first mark.

        Raises:
            StorageError: If it cannot be written.
        """
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Take the mark away."""
        self.end()

    def end(self) -> None:
        """Take the mark away; once is enough."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join(JOIN_SECONDS)
            with contextlib.suppress(StorageError):  # it is over in ten minutes
                self._remove_own(keep="")

    def others(self) -> set[str]:
        """Who else has a mark; not one whose has not changed in ten minutes of this one's looking.

        Raises:
            StorageError: If the marks cannot be listed.
        """
        return set(map(_who, self._other_marks()))

    def living(self) -> set[str]:
        """Who else lives: waits until another mark changes, or all have gone or not changed for ten minutes.

        Raises:
            StorageError: If the marks cannot be listed.
        """
        first = self._other_marks()
        while marks := self._other_marks():
            if marks - first:
                return set(map(_who, marks))
            time.sleep(BEAT_SECONDS)
            self._look()
        return set()

    def remove_dead(self) -> None:
        """Remove the marks that have not changed for ten minutes.

        Raises:
            StorageError: If they cannot be removed.
        """
        for mark, looks in self._looks.items():
            if looks > LOOKS:
                storage.remove_file(f"{self._uri}/{mark}")

    def _keep_beating(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                self._beat()
            except StorageError as error:
                print(f"{WARNING}the sign of life for the nodes cannot be left: {error}", flush=True)

    def _beat(self) -> None:
        mark = f"{self._who}.{uuid.uuid4().hex}"
        storage.write_file(f"{self._uri}/{mark}", b"")
        self._remove_own(keep=mark)
        self._look()

    def _look(self) -> None:
        self._looks = {mark: self._looks.get(mark, 0) + 1 for mark in _marks(self._uri)}

    def _other_marks(self) -> set[str]:
        return {mark for mark in _marks(self._uri) if _who(mark) != self._who and self._looks.get(mark, 0) <= LOOKS}

    def _remove_own(self, keep: str) -> None:
        for mark in _marks(self._uri):
            if _who(mark) == self._who and mark != keep:
                storage.remove_file(f"{self._uri}/{mark}")


def _marks(uri: str) -> list[str]:
    """The marks in a folder, without one that is being written to a volume."""
    return [name for name in storage.file_names(uri) if not name.startswith(".")]


def _who(mark: str) -> str:
    return mark.partition(".")[0]


def is_abandoned(uri: str) -> bool:
    """Whether a job's nodes have found that nobody waits for it.

    Raises:
        StorageError: If its folder `uri` cannot be listed.
    """
    return ABANDONED in storage.file_names(uri)


def end_when_abandoned(uri: str) -> threading.Event:
    """Look after a job's marks from a thread; tell this process to stop by SIGTERM when nobody waits any more.

    Args:
        uri: The job's folder.

    Returns:
        What is set when that is why.
    """
    abandoned = threading.Event()

    def look() -> None:
        quiet, before = 0, None
        while True:
            try:
                if is_abandoned(uri):
                    break
                marks = _marks(f"{uri}/{WAITING}")
                quiet = quiet + 1 if marks == before else 0
                before = marks
            except StorageError:
                pass
            if quiet == LOOKS:
                break
            time.sleep(BEAT_SECONDS)
        minutes = LOOKS * BEAT_SECONDS / 60
        print(f"nobody has waited for this job for {minutes:g} minutes: its nodes end", flush=True)
        with contextlib.suppress(StorageError):
            storage.write_file(f"{uri}/{ABANDONED}", b"")
        abandoned.set()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()
    return abandoned
