"""How far a long call is and how fast it goes, on stderr: a bar on a terminal, a line now and then in a log.

What is over soon says nothing. On a terminal where the results appear as well there is no bar: they are the progress,
and a bar among them would be torn.
"""

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from natix_lib.cli.screen import columns
from natix_lib.progress import duration, read

BAR_SECONDS = 1.0  # after which a bar appears
LINE_SECONDS = 30.0  # between two lines of a log, and before the first
WIDE = 60  # columns, below which there is no bar beside the numbers


class Rate:
    """Counts images; a context, within which the bar is drawn.

    Args:
        total: How many there will be; None when nobody knows.
        bar: Whether a terminal on stderr is free for a bar.
    """

    def __init__(self, total: int | None, bar: bool) -> None:
        self.done = 0
        self._total = total
        self._started = self._said = time.monotonic()
        self._bar = _progress_bar() if bar else None
        if self._bar:
            self._task = self._bar.add_task("", total=total, said="")

    def __enter__(self) -> "Rate":
        return self

    def __exit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def add(self) -> None:
        """One more is done."""
        self.reach(self.done + 1)

    def reach(self, done: int, total: int | None = None) -> None:
        """So many are done, of so many where that is known now."""
        self.done = done
        if total is not None and total != self._total:
            self._total = total
            if self._bar:
                self._bar.update(self._task, total=total)
        now = time.monotonic()
        if self._bar:
            if not self._bar.live.is_started and now - self._started >= BAR_SECONDS:
                self._bar.start()
            self._bar.update(self._task, completed=self.done, said=self._speed())
        elif now - self._said >= LINE_SECONDS:
            self._said = now
            of_all = "" if self._total is None else f" of {self._total}"
            print(f"{self.done}{of_all} images, {self._speed()}", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _speed(self) -> str:
        speed = self.done / max(self.seconds, 1e-9)
        left = "" if self._total is None or not self.done else f", {duration((self._total - self.done) / speed)} left"
        return f"{speed:.1f} images/s{left}"


@contextlib.contextmanager
def steps_shown() -> Iterator[None]:
    """Steps that run in this process tell their progress as a rate, and the rest of what they print on stderr."""
    with Rate(None, bar=True) as rate, contextlib.redirect_stdout(_Shown(rate)):
        yield


class _Shown(io.TextIOBase):
    """Takes whole lines, as `progress.Lines` writes them."""

    def __init__(self, rate: Rate) -> None:
        self._rate, self._begun = rate, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if (told := read(line)) is not None:
                self._rate.reach(told.done, told.total)
            else:
                self._rate.say(line)
        return len(text)


def _progress_bar() -> Progress | None:
    """A bar for the terminal on stderr; None if that is none, or one that cannot redraw a line."""
    width = columns(sys.stderr)
    console = Console(file=sys.stderr, width=width)
    if not width or not console.is_terminal or console.is_dumb_terminal:
        return None
    bar = [BarColumn(None)] if width >= WIDE else []
    return Progress(
        *bar, MofNCompleteColumn(), TextColumn("{task.fields[said]}"),
        console=console, transient=True, redirect_stdout=False, redirect_stderr=False, expand=bool(bar),
    )  # fmt: skip
