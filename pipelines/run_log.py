"""What KFP's local runner and the steps print, as a log to keep and as events of a run for who shows it."""

import io
import re
import signal
import time
from pathlib import Path
from typing import Protocol

from natix_lib import run_cache
from natix_lib.errors import NatixError
from natix_lib.files import write_bytes
from natix_lib.progress import ERROR
from natix_pipelines.step_cache import CHANGED

INDENT = "    "  # before each line of a step, and before no line of KFP's own
COLOUR = re.compile(r"\x1b\[\d+m")
EXECUTOR = re.compile(r"\s*($|\[KFP Executor|[][{}\"])")  # what KFP's executor prints of a step: its log and its JSON
STARTED = re.compile(r"Executing task '([\w-]+)'")
REPEATED = re.compile(CHANGED.format(r"([\w-]+)"))
ENDED = re.compile(r"Task '([\w-]+)' finished with status (\w+)")
TRACEBACK = INDENT + "Traceback (most recent call last):"


class Display(Protocol):
    """What shows a run."""

    def started(self, step: str) -> None:
        """A step begins; one that is taken from the cache does not."""

    def line(self, step: str, text: str) -> None:
        """The step at work printed a line."""

    def note(self, step: str, text: str) -> None:
        """What a finished step means for the run, for a person: it stays on the screen."""

    def repeated(self, step: str) -> None:
        """A step's cached result was changed, so the step begins anew."""

    def finished(self, step: str, cached: bool, seconds: float) -> None:
        """A step ended well; `seconds` is what it took, or, of a cached one, had taken when it was at work."""

    def failed(self, step: str, log: Path) -> None:
        """A step ended in an error, which the caller reports; the whole log so far is in the file `log`."""


class RunLog(io.TextIOBase):
    """Takes what is printed, tells the display, and keeps the lines.

    Attributes:
        code: The exit code of the last step that ended.
        notes: What to show when the step that is ending has ended.
    """

    def __init__(self, display: Display) -> None:
        """Tell `display`."""
        self.code = 0
        self.notes: list[str] = []
        self._display = display
        self._lines: list[str] = []
        self._partial = ""
        self._step = ""
        self._began = 0.0
        self._first = 0  # the number of the step's first line

    def write(self, text: str) -> int:
        """Take text; a line counts when it has ended."""
        *whole, self._partial = (self._partial + text).split("\n")
        for line in whole:
            self._take(COLOUR.sub("", line))
        return len(text)

    def text(self) -> str:
        """All lines so far."""
        return "\n".join([*self._lines, self._partial]).rstrip() + "\n"

    def finished(self, step: str, cached: bool, seconds: float) -> None:
        """A step ended well, or was taken from the cache."""
        self._display.finished(step, cached, seconds)
        for text in self.notes:
            self._lines.append(f"{step}: {text}")
            self._display.note(step, text)
        self.notes = []

    def _take(self, line: str) -> None:
        self._lines.append(line)
        if line.startswith(INDENT):
            if not EXECUTOR.match(line) and not line.startswith(INDENT + ERROR):  # the caller reports that one
                self._display.line(self._step, line.strip())
        elif match := STARTED.search(line):
            self._step, self._first, self._began = match[1], len(self._lines), time.monotonic()
            self._display.started(self._step)
        elif match := REPEATED.search(line):
            self._display.repeated(match[1])
        elif (match := ENDED.search(line)) and match[2] == "SUCCESS":
            self.finished(match[1], False, time.monotonic() - self._began)

    def error(self, place: Path) -> NatixError:
        """The failed step's own error, read from its exit code and the end of its log.

        Args:
            place: The folder that receives the log, as `failed.log`.
        """
        lines = [line.rstrip() for line in self._lines[self._first :] if line.startswith(INDENT) and line.strip()]
        reason = _reason(lines)
        write_bytes(place / run_cache.FAILED_LOG, self.text().encode())
        self._display.failed(self._step or "pipeline", place / run_cache.FAILED_LOG)
        if self.code <= 128 and reason.startswith(ERROR):
            return NatixError(reason.removeprefix(ERROR))
        how = _signal(self.code) if self.code > 128 else f"failed: {reason}"
        return NatixError(f"step {self._step} {how}" if self._step else f"the pipeline {how}")


def _reason(lines: list[str]) -> str:
    """The line by which a step says why it ended; else the end of the last traceback, else the last line.

    An `error: ...` before the last traceback is another's, a library's that went on.
    """
    last = max((number for number, line in enumerate(lines) if line == TRACEBACK), default=-1)
    after = lines[last + 1 :]
    said = [line for line in after if line.startswith(INDENT + ERROR)]
    ends = [line for line in after if not line.startswith(INDENT + " ")][:1] if last >= 0 else []
    return (said or ends or lines or [""])[-1].strip()


def _signal(code: int) -> str:
    name = signal.Signals(code - 128).name if code - 128 in signal.valid_signals() else f"exit code {code}"
    hint = ""
    if name == "SIGKILL":
        hint = ", most often for want of memory: try a smaller batch_size, fewer num_workers or a larger machine"
    return f"was ended by {name}{hint}"
