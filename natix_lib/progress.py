"""What a step says of itself, as lines of a log: a pod has no terminal, and `natix run` draws its bar from them.

Five forms have a meaning, all others are text: `what: done/total`, with details after it; `warning: ...` and
`note: ...`, which stay on the screen; `device: ...`, what the step computes on; `error: ...`, the last line, why it
ended.
"""

import re
import time
from typing import NamedTuple

from natix_lib.errors import LONGEST, printable, shortened

WARNING, NOTE, DEVICE, ERROR = "warning: ", "note: ", "device: ", "error: "
LONGEST_LINE = LONGEST + len(WARNING)  # characters: a warning that repeats an error stays whole
LONGEST_NAME = 100  # characters of a class in a line that counts images of several
FORM = re.compile(r"(.+?): (\d+)/(\d+)(?: .*)?")


class Progress(NamedTuple):
    """How far a piece of work is: what it counts, how many are done, and how many there are, at least 1."""

    what: str
    done: int
    total: int


def read(line: str) -> Progress | None:
    """The progress that a line tells; None when it tells none."""
    match = FORM.fullmatch(line)
    if not match or not int(match[3]):
        return None
    return Progress(match[1], int(match[2]), int(match[3]))


def duration(seconds: float) -> str:
    """Seconds as a person says them: `4.2 s`, `42 s`, `1m 30s`, `2h 05m`, `3 days`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02}m" if whole < 2 * 86400 else f"{seconds / 86400:.0f} days"


class Lines:
    """Print what is done, at most once in `seconds` and at the end of each piece of work."""

    def __init__(self, seconds: float = 2.0) -> None:
        """Print at most one progress line in `seconds`; 0 prints all."""
        self.seconds = seconds
        self._last = 0.0

    def progress(self, what: str, done: int, total: int, details: str = "") -> None:
        """`what: done/total details`."""
        now = time.monotonic()
        if done == total or now - self._last >= self.seconds:
            self._last = now
            self.say(f"{what}: {done}/{total} {details}".rstrip())

    def say(self, line: str) -> None:
        """Print a line at once, of at most LONGEST_LINE characters.

        What a name in it would do to a terminal or to the lines of a log is escaped.
        """
        print(shortened(printable(line), LONGEST_LINE), flush=True)
