"""What a person sees of `natix run` on a terminal."""

import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from natix_lib.cli.display import RunDisplay
from natix_pipelines import local
from natix_pipelines.run_log import RunLog
from tests import terminal

STEPS = ("ingest", "split", "fetch", "train", "sweep", "calibrate", "export", "evaluate")


def say_as_kfp(step: str, lines: list[str], status: str = "SUCCESS") -> None:
    """Print what KFP's local runner prints of a step."""
    print(f"12:00:00.100 - INFO - Executing task \x1b[96m{step!r}\x1b[0m")
    print("12:00:00.101 - INFO - Streamed logs:\n\n    [KFP Executor 2026-01-01 INFO]: --component_module_path /tmp/x")
    for line in lines:
        print(f"    {line}")
    print('    {\n      "schemaVersion": "0.0.1"\n    }')
    print(f"    \n\n12:00:01.000 - INFO - Task \x1b[96m{step!r}\x1b[0m finished with status \x1b[92m{status}\x1b[0m")
    print("-" * 80)


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("fails", [False, True])
def test_a_terminal_shows_a_line_for_each_step_and_nothing_of_kfp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int, fails: bool
) -> None:
    seen = terminal.Terminal(columns)
    monkeypatch.setenv("TERM", "xterm")
    with open(seen.slave, "w") as stream:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(sys, "stdout", stream)
        with RunDisplay(Console(file=stream, width=columns)) as display:
            log = RunLog(display)
            with local._listening(log):
                for step in STEPS[:-1]:
                    say_as_kfp(step, [f"images: {n}/40 of a long line \t that is {'w' * 90}" for n in range(40)])
                print("stray", file=sys.stderr)
                end = ["Traceback (most recent call last):", "  File x", "ValueError: broken", "late warning"]
                say_as_kfp("evaluate", end if fails else [], "FAILURE" if fails else "SUCCESS")
            if fails:
                log.error(tmp_path)
    text = seen.text()
    shown = terminal.screen(text, columns)
    if fails:
        assert shown.pop() == f"log     {tmp_path / 'failed.log'}"
    assert [line.split()[:2] for line in shown] == [
        ["failed" if fails and step == "evaluate" else "done", step] for step in STEPS
    ]
    assert "schemaVersion" not in text and "}" not in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert log.text().count("images: 39/40") == 7 and "stray" in log.text()


def test_a_step_that_lasts_leaves_one_line_on_a_terminal_narrower_than_columns_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = terminal.Terminal(40)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with open(seen.slave, "w") as stream, RunDisplay(Console(file=stream)) as display:  # noqa: PTH123 - a descriptor
        display.started("ingest")
        for number in range(3):
            display.line("ingest", f"images: {number}/40 of a long line that is {'w' * 90}")
            time.sleep(0.2)  # two repaints
        display.finished("ingest", cached=False, seconds=0.6)
    text = seen.text()
    (line,) = terminal.screen(text, 40)
    assert line.startswith("done    ingest") and text.count("/40") > 2
