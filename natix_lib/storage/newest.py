"""Files that are written beside a computation, the newest of them: a store that is away must not end days of work.

A thread writes one file at a time and repeats it while the store is away. What is given to it meanwhile waits, one
file: a newer one takes its place, with a line. So a computation holds at most three contents in memory, the one that it
has just made, the one that waits and the one that is written, and never waits for a store.

A store that refuses, because the place is mistyped or no right was given, is told at once as long as nothing was
written: it would refuse for ever, and then nobody would know before the work is lost. Later it is a line.
"""

import threading
import time
from collections.abc import Callable

from natix_lib import repeats, storage
from natix_lib.errors import StorageError
from natix_lib.progress import WARNING, Lines
from natix_lib.repeats import Away


class NewestWriter:
    """Writes files in a thread that ends with the process.

    Attributes:
        written: The address of the last file that was written; None before.
    """

    def __init__(self, tidy: Callable[[], object]) -> None:
        """Begin without a thread; `tidy` is called in it after each file, and may raise StorageError."""
        self.written: str | None = None
        self._tidy = tidy
        self._changed = threading.Condition()
        self._waiting: tuple[str, bytes] | None = None
        self._at_work: str | None = None
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def put(self, uri: str, content: bytes) -> None:
        """Let a file be written, in place of one that waits."""
        with self._changed:
            if self._waiting:
                _warn(f"{self._waiting[0]} was not written: {uri} takes its place")
            self._waiting = uri, content
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is at work."""
        with self._changed:
            return not (self._waiting or self._at_work)

    def check(self) -> None:
        """Raise what the store has refused before anything was written, or a bug of the thread.

        Raises:
            StorageError: What the store said.
        """
        if self._error:
            raise self._error

    def settle(self, seconds: float) -> bool:
        """Wait until all is written, at most so long; whether it is, and a line where it is not."""
        with self._changed:
            done = self._changed.wait_for(lambda: not (self._waiting or self._at_work) or self._error, seconds)
            if not done:
                _warn(f"{(self._waiting or (self._at_work,))[0]} could not be written in {seconds:.0f} s")
        return bool(done)

    def write_now(self, uri: str, content: bytes, seconds: float) -> None:
        """Write a file beside the one that is being written, of a process that is about to end.

        It takes at most so many seconds; a line says so where that was not enough.
        """
        with self._changed:
            self._waiting = None  # it is no newer
            in_hand = uri in (self._at_work, self.written)
        if in_hand:
            self.settle(seconds)
            return
        thread = threading.Thread(target=self._write, args=(uri, content), daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            _warn(f"{uri} could not be written in {seconds:.0f} s")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                assert self._waiting
                (uri, content), self._waiting = self._waiting, None
                self._at_work = uri
            try:
                away = not self._write(uri, content)
            except Exception as error:  # a bug: the computation must hear of it
                self._error, away = error, False
            with self._changed:
                if away and self._waiting is None:
                    self._waiting = uri, content
                self._at_work = None
                self._changed.notify_all()
            if away:
                time.sleep(repeats.FIRST)

    def _write(self, uri: str, content: bytes) -> bool:
        """Write a file; whether that is settled, well or not, and needs no further try."""
        try:
            storage.write_file(uri, content)
            self.written = uri
            self._tidy()
        except Away as error:
            if self.written != uri:
                _warn(f"{error}; the work goes on, and it or a newer one is written when the store is back")
            return self.written == uri
        except StorageError as error:
            if self.written is None:
                self._error = error
            _warn(f"{error}; the work goes on")
        return True


def _warn(text: str) -> None:
    Lines().say(f"{WARNING}{text}")
