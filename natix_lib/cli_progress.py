"""What `natix run` shows while it runs: one line a step, with the step's latest progress beside it."""

import time
from types import TracebackType

from rich.console import Console
from rich.status import Status
from rich.text import Text


class RunDisplay:
    """A line for each finished step, a spinner with the last log line for the one at work."""

    def __init__(self, console: Console) -> None:
        """Write to `console`; on a terminal the running step is animated."""
        self.console = console
        self._status: Status | None = None
        self._started = 0.0

    def __enter__(self) -> "RunDisplay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def started(self, step: str) -> None:
        """A step begins."""
        self._stop()
        self._started = time.monotonic()
        if self.console.is_terminal:
            self._status = self.console.status(Text(step))
            self._status.start()

    def line(self, step: str, text: str) -> None:
        """The step at work printed a line."""
        if self._status:
            self._status.update(Text.assemble(step, ("  " + text[:100], "dim")))

    def finished(self, step: str, cached: bool) -> None:
        """A step ended well."""
        self._stop()
        seconds = time.monotonic() - self._started
        note = "unchanged, taken from the cache" if cached else f"{seconds:.1f} s"
        self.console.print(Text.assemble(("done    ", "green"), f"{step:<11}", (note, "dim")))

    def failed(self, step: str) -> None:
        """A step ended in an error, which the caller reports."""
        self._stop()
        self.console.print(Text.assemble(("failed  ", "red"), step))

    def _stop(self) -> None:
        if self._status:
            self._status.stop()
            self._status = None
