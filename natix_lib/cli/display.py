"""What `natix run` shows while it runs: a line for each step that has ended, and below them the one at work.

On a terminal two lines are redrawn by Rich's Live: the step at work with its time, and a bar with rate and time left
where it says `what: done/total`; below, the device and the steps that wait. Live by default takes stdout and stderr
over and prints whatever goes there above its own lines. Here it must not: `natix run` takes KFP's output into its log,
and Live would take it back and flood the screen. Rich's Progress was rejected: on a narrow terminal it folds its
columns, where the bar should shrink and what matters least be left out.

A pipe, a log of a CI and a dumb terminal get plain lines: when a step begins and ends, and every 30 s between, so that
nobody takes a long step for a dead one. FORCE_COLOR gives them colours, and no bar: a log keeps every line of it.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from natix_lib.cli.screen import columns, say
from natix_lib.errors import printable
from natix_lib.progress import DEVICE, NOTE, WARNING, Progress, duration, read

LOG_SECONDS = 29.0  # between lines of a step at work where nothing is redrawn: looked at every second, at most 30
MOST_WARNINGS = 5  # of a step, shown whole
SAMPLES = 16  # of progress that a rate is taken over: the last half minute, as steps print at most every 2 s
LEAST_BAR, WIDEST_BAR = 5, 24
Part = tuple[str, str]  # a text and its style


class Work:
    """The step at work: since when, the last line that it printed, and how fast its progress is."""

    def __init__(self, step: str) -> None:
        """Begin now."""
        self.step = step
        self.began = self.said = time.monotonic()  # `said` is when a plain line last showed it
        self.device = ""
        self.text = ""
        self.progress: Progress | None = None
        self.warnings: list[str] = []
        self._samples: dict[str, deque[tuple[float, int]]] = {}  # when, how many were done

    def take(self, line: str) -> None:
        """Take in a line of the step's log."""
        line = printable(line)
        if line.startswith(DEVICE):
            self.device = line.removeprefix(DEVICE)
            return
        progress = read(line)
        if progress:  # first the sample: another thread draws
            samples = self._samples.setdefault(progress.what, deque(maxlen=SAMPLES))
            samples.append((time.monotonic(), progress.done))
        self.text, self.progress = line, progress

    def elapsed(self) -> str:
        """For how long it has been at work."""
        return duration(time.monotonic() - self.began)

    def pace(self, progress: Progress) -> tuple[str, str]:
        """Rate and time left of what it has told, "" where they cannot be known yet."""
        (first, done), (last, now_done) = (self._samples[progress.what][end] for end in (0, -1))
        if last - first < 0.1 or now_done <= done:
            return "", ""
        rate = (now_done - done) / (last - first)
        left = max(0.0, (progress.total - now_done) / rate - (time.monotonic() - last))
        shown = f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.1f}/min"
        return shown, f"{duration(round(left))} left"


class RunDisplay:
    """Shows a run: what `natix_pipelines.run_log.Display` asks for."""

    def __init__(self, console: Console, steps: Sequence[str] = ()) -> None:
        """Write to `console`; `steps` are those that will run, in order."""
        self.console = console
        self._steps = list(steps)
        self._began = time.monotonic()
        self._ended: list[tuple[str, float | None]] = []  # and the seconds that the cache has saved; None for work
        self._work: Work | None = None
        self._over = threading.Event()
        self._utf8 = console.encoding.startswith("utf")
        self._spinner = Spinner("dots" if self._utf8 else "line")
        self._animated = console.is_interactive and console.file.isatty()
        self._live = Live(
            console=console,
            get_renderable=self._picture,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=8,
        )
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "RunDisplay":
        if self._animated:
            self._live.start()
        else:
            self._ticker.start()
        return self

    def __exit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._animated:
            self._live.stop()
        else:
            self._ticker.join()

    def started(self, step: str) -> None:
        """A step begins."""
        self._work = Work(step)
        if not self._animated:
            self._print(("start   ", "dim"), (step, ""))

    def line(self, step: str, text: str) -> None:
        """The step at work printed a line; a note stays, and a warning, the same one once."""
        work = self._work
        if not work:
            return
        if text.startswith(NOTE):
            self.note(step, text.removeprefix(NOTE))
        elif not text.startswith(WARNING):
            work.take(text)
        elif text not in work.warnings:
            work.warnings.append(text)
            if len(work.warnings) <= MOST_WARNINGS:
                self._sentence(text, "yellow")

    def note(self, step: str, text: str) -> None:
        """What a finished step means for the run; it stays."""
        self._sentence(text, "yellow" if text.startswith(WARNING) else "")

    def repeated(self, step: str) -> None:
        """A step's cached result was changed, so the step begins anew."""
        self._sentence(f"cached {step} was changed: repeated", "yellow")

    def finished(self, step: str, cached: bool, seconds: float) -> None:
        """A step ended well, or stood in the cache and had taken `seconds` when it was made."""
        self._ended.append((step, seconds if cached else None))
        if cached:
            self._print(("cached  ", "cyan"), (f"{step:<11} ", ""), (f"{duration(seconds)} saved", "dim"))
            return
        device = f"  {self._work.device}" if self._work else ""
        self._end()
        self._print(("done    ", "green"), (f"{step:<11} ", ""), (f"{duration(seconds):<6}{device}", "dim"))

    def failed(self, step: str, log: Path) -> None:
        """A step ended in an error, which the caller reports last; before it, where its log is."""
        elapsed = f" {self._work.elapsed()}" if self._work else ""
        self._end()
        self._print(("failed  ", "red"), (f"{step:<11}", ""), (elapsed, "dim"))
        self.console.print(Text(f"log     {log}"), soft_wrap=True)

    def summary(self) -> str:
        """How long the run took, and what the cache has saved."""
        saved = [seconds for _, seconds in self._ended if seconds is not None]
        text = duration(time.monotonic() - self._began)
        if saved:
            text += f"; {len(saved)} of {len(self._ended)} steps from the cache, saving about {duration(sum(saved))}"
        return text

    def _end(self) -> None:
        """The step at work has ended: warnings that were not shown are counted."""
        work, self._work = self._work, None
        if work and (more := len(work.warnings) - MOST_WARNINGS) > 0:
            self._sentence(f"{WARNING}{more} more of {work.step}, in the log", "yellow")

    def _tick(self) -> None:
        while not self._over.wait(min(1.0, LOG_SECONDS / 4)):
            work = self._work
            if not work or time.monotonic() - work.said < LOG_SECONDS:
                continue
            work.said = time.monotonic()
            parts = [work.elapsed()]
            if progress := work.progress:
                parts += [progress.what, f"{progress.done}/{progress.total}", *work.pace(progress)]
            self._print(("running ", "dim"), (f"{work.step:<11} {'  '.join(part for part in parts if part)}", ""))

    def _picture(self) -> Group:
        """The lines that are redrawn, none wider than the terminal."""
        columns, work = self._columns() - 1, self._work
        begun = {step for step, _ in self._ended} | ({work.step} if work else set())
        waiting = [step for step in self._steps if step not in begun]
        what = work.device if work else ""
        then = f"then {', '.join(waiting)}" if waiting else ""
        between = "checking what is kept" if waiting or not self._ended else "writing the output"
        shown = self._at_work(work, columns - 2) if work else Text(between)
        self._spinner.update(text=self._fit(shown, columns - 2))
        lines = [self._fit(Text(f"  {'; '.join(part for part in (what, then) if part)}", "dim"), columns)]
        return Group(self._spinner, *(lines if what or then else []))

    def _at_work(self, work: Work, columns: int) -> Text:
        """The step, its time and its progress; what matters least is left out where there is no room."""
        head = f"{work.step}  {work.elapsed()}"
        if not (progress := work.progress):
            return Text.assemble(head, (f"  {work.text}", "dim"))
        what, done, total = progress
        rate, left = work.pace(progress)
        for before, after in (
            (what, (f"{done}/{total}", rate, left)),
            (what, (f"{done}/{total}", left)),
            ("", (f"{done}/{total}", left)),
        ):
            start, end = ("  ".join(part for part in parts if part) for parts in ((head, before), after))
            bar = min(WIDEST_BAR, columns - cell_len(start) - cell_len(end) - 4)
            if bar >= LEAST_BAR:
                break
        else:
            return Text(f"{head}  {done}/{total}")
        full = bar * min(done, total) // total
        marks = "━─" if self._utf8 else "#-"
        return Text.assemble(
            f"{start}  ", (marks[0] * full, "green"), (marks[1] * (bar - full), "dim"), (f"  {end}", "")
        )

    def _fit(self, text: Text, columns: int) -> Text:
        text.no_wrap = True
        text.truncate(columns, overflow="ellipsis" if self._utf8 else "crop")
        return text

    def _columns(self) -> int:
        return min(self.console.width, columns(self.console.file) or self.console.width)

    def _print(self, *parts: Part) -> None:
        """Print a line of a step; on a terminal it is never folded."""
        text = Text.assemble(*parts)
        text.rstrip()
        if self._animated:
            self._fit(text, self._columns())
        self.console.print(text, soft_wrap=True)

    def _sentence(self, text: str, style: str) -> None:
        """Print what a person should read whole."""
        say(self.console, printable(text), style)
