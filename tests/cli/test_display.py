import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from natix_lib.cli import display as display_module
from natix_lib.cli.display import RunDisplay
from natix_pipelines.training import steps_of
from tests import terminal
from tests.cli.test_cli import ROOT

WARNING = "warning: 2 pictures have equal pixels and contradicting labels"
LONG = "warning: " + " ".join(f"word{number}" for number in range(30))


def show(console: Console) -> str:
    """A good run of three steps and one that fails; the summary."""
    with RunDisplay(console, ("ingest", "split", "train", "export")) as display:
        display.started("ingest")
        for done in (3, 5):
            display.line("ingest", f"images: {done}/7")
            time.sleep(0.3)  # two pictures of a terminal
        for text in (WARNING, LONG, WARNING, *(f"warning: {number}" for number in range(5))):
            display.line("ingest", text)
        display.finished("ingest", cached=False, seconds=3.4)
        display.finished("split", cached=True, seconds=72.0)
        display.note("split", "34 groups in VAL_CALIB; alpha 0.05 needs 72 without an error")
        display.started("train")
        display.line("train", "device: cpu, 2 threads")
        display.line("train", "note: going on from epoch 2")
        display.line("train", "epochs: 2/9 train/loss 0.1")
        time.sleep(0.3)
        display.failed("train", Path("cache/failed.log"))
        return display.summary()


def on_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    monkeypatch.delenv("COLUMNS", raising=False)
    for name, value in {"TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    seen = terminal.Terminal(columns)
    with open(seen.slave, "w") as stream:  # noqa: PTH123 - a descriptor
        show(Console(file=stream))
    return seen.text()


def test_a_log_gets_lines_when_a_step_begins_and_ends_and_no_escapes() -> None:
    text = io.StringIO()
    summary = show(Console(file=text))
    assert text.getvalue().splitlines() == [
        "start   ingest",
        WARNING,
        LONG,
        *(f"warning: {number}" for number in range(3)),
        "warning: 2 more of ingest, in the log",
        "done    ingest      3.4 s",
        "cached  split       1m 12s saved",
        "34 groups in VAL_CALIB; alpha 0.05 needs 72 without an error",
        "start   train",
        "going on from epoch 2",
        "failed  train       0.3 s",
        "log     cache/failed.log",
    ]
    assert re.fullmatch(r"\d\.\d s; 1 of 2 steps from the cache, saving about 1m 12s", summary)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 40, 20])
def test_a_terminal_keeps_what_has_ended_and_no_line_is_cut_or_folded(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = on_a_terminal(columns, monkeypatch)
    shown = terminal.screen(text, columns)
    steps = [line.split()[:2] for line in shown if line.startswith(("done", "cached", "failed"))]
    assert steps == [["done", "ingest"], ["cached", "split"], ["failed", "train"]]
    assert shown[-1] == "log     cache/failed.log" and "start" not in text
    warning = " ".join(line.strip() for line in shown[: shown.index("warning: 0")])
    assert warning == f"{WARNING} {LONG}" and "from warning" not in text
    assert all(len(line) <= columns for line in shown[:-1])
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


@pytest.mark.parametrize(
    "columns, at_work, below",
    [
        (80, r"images  ━{17}─{7}  5/7  [2-6]\.\d/s  \d\.\d s left$", "  then split, train, export"),
        (40, r"━{3}─{2}  5/7  \d\.\d s left$", "  then split, train, export"),
        (20, r"ingest  \d\.\d s  5…$", "  then split, trai…"),
    ],
)
def test_a_terminal_shows_how_far_the_step_at_work_is_and_what_waits(
    columns: int, at_work: str, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = terminal.while_at_work(on_a_terminal(columns, monkeypatch), "  5[/…]")
    *_, line, then = terminal.screen(written, columns)
    assert re.match(r". ingest  \d\.\d s?", line) and re.search(at_work, line), line
    assert then == below


def test_a_terminal_shows_the_device_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    written = terminal.while_at_work(on_a_terminal(80, monkeypatch), "epochs")
    assert terminal.screen(written, 80)[-1] == "  cpu, 2 threads; then export"


def test_no_color_leaves_the_bar_and_takes_the_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    text = on_a_terminal(80, monkeypatch, NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*3\dm", text) and "━" in text
    assert re.search(r"\x1b\[[\d;]*3\dm", on_a_terminal(80, monkeypatch, NO_COLOR=""))


def test_a_dumb_terminal_gets_the_lines_of_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    text = on_a_terminal(80, monkeypatch, TERM="dumb")
    assert "\x1b" not in text and text.startswith("start   ingest")


def test_a_log_that_wants_colours_gets_them_and_nothing_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = io.StringIO()
    show(Console(file=text))
    assert set(re.findall(r"\x1b\[[\d;]*(\w)", text.getvalue())) == {"m"}


def test_a_terminal_that_is_not_utf_8_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    seen = terminal.Terminal(30)
    with open(seen.slave, "w", encoding="latin-1") as stream:  # noqa: PTH123 - a descriptor
        show(Console(file=stream))
    assert re.search(r"#{3}\x1b\[0m\x1b\[2m-{4}\x1b\[0m  3/7", seen.text())


def test_a_log_hears_of_a_long_step_whether_or_not_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 20 <= display_module.LOG_SECONDS + 1 <= 30
    monkeypatch.setattr(display_module, "LOG_SECONDS", 0.2)
    text = io.StringIO()
    with RunDisplay(Console(file=text)) as display:
        time.sleep(0.3)
        display.started("train")
        time.sleep(0.5)
        for done in range(3):
            display.line("train", f"epochs: {done}/9 train/loss 0.5")
            time.sleep(0.2)
        display.finished("train", cached=False, seconds=1.2)
        time.sleep(0.3)
    first, silent, *others, last = text.getvalue().splitlines()
    assert first == "start   train" and last == "done    train       1.2 s"
    assert re.fullmatch(r"running train       0\.\d s", silent)
    assert re.fullmatch(r"running train       1\.\d s  epochs  [12]/9  [45]\.\d/s  [12]\.0 s left", others[-1])


def test_the_recorded_screens_show_the_steps_and_the_promise_of_now() -> None:
    page = (ROOT / "docs" / "screens.md").read_text(encoding="utf-8")
    steps = re.findall(r"^(?:done|cached|failed|start) +(\S+)", page, re.MULTILINE)
    assert set(steps) == set(steps_of(with_explora=False)), "make screens"
    assert re.search(r"^promise   (un)?certified: ", page, re.MULTILINE), "make screens"
