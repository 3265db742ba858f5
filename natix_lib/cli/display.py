"""What `natix run` shows while it runs: one line a step, with the step's latest progress beside it.

On a terminal the line of the step at work is redrawn by Rich's Live, which by default takes stdout and stderr over and
prints whatever goes there above its own line. Here it must not: `natix run` takes KFP's output into its log, and
Live would take it back and flood the screen.

A line that the terminal folds cannot be redrawn: only its last row is erased. So the width is asked of the terminal
itself. Rich believes COLUMNS instead, which programs export (whatever loads GNU readline does) and terminals outgrow.
"""

import os
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text


class RunDisplay:
    """A line for each finished step, a spinner with the last log line for the one at work."""

    def __init__(self, console: Console) -> None:
        """Write to `console`; on a terminal the running step is animated."""
        self.console = console
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._started = 0.0

    def __enter__(self) -> "RunDisplay":
        return self

    def __exit__(
        self, error_class: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def started(self, step: str) -> None:
        """A step begins."""
        self._stop()
        self._started = time.monotonic()
        if self.console.is_terminal:
            self._show(step, "")
            self._live = Live(
                self._spinner,
                console=self.console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                refresh_per_second=12.5,  # as Rich's own Status has it
            )
            self._live.start()

    def line(self, step: str, text: str) -> None:
        """The step at work printed a line; a warning stays."""
        if text.startswith("warning: "):
            self.console.print(Text.assemble((text, "yellow")), soft_wrap=True)
        else:
            self._show(step, text)

    def repeated(self, step: str) -> None:
        """A step's cached result was changed, so the step begins anew."""
        self._print((f"cached {step} was changed: repeated", "yellow"))

    def finished(self, step: str, cached: bool) -> None:
        """A step ended well."""
        seconds = time.monotonic() - self._started
        self._print(
            ("done    ", "green"), (f"{step:<11}", ""), ("from the cache" if cached else f"{seconds:.1f} s", "dim")
        )

    def failed(self, step: str) -> None:
        """A step ended in an error, which the caller reports."""
        self._print(("failed  ", "red"), (step, ""))

    def _show(self, step: str, text: str) -> None:
        shown = Text.assemble(step, ("  " + "".join(c if c.isprintable() else " " for c in text), "dim"))
        shown.truncate(self._columns() - 3, overflow="ellipsis")  # beside the spinner, on one line
        self._spinner.update(text=shown)

    def _columns(self) -> int:
        try:
            return min(self.console.width, os.get_terminal_size(self.console.file.fileno()).columns or 80)
        except OSError:  # no terminal, or a file without a descriptor
            return self.console.width

    def _print(self, *parts: tuple[str, str]) -> None:
        self._stop()
        self.console.print(Text.assemble(*parts))

    def _stop(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None
