import io

from rich.console import Console

from natix_lib.cli.display import RunDisplay


def shown(terminal: bool) -> str:
    text = io.StringIO()
    with RunDisplay(Console(file=text, force_terminal=terminal, width=80, color_system=None)) as display:
        display.started("ingest")
        display.line("ingest", "images: 3/7")
        display.line("ingest", "warning: 2 pictures have equal pixels and contradicting labels")
        display.finished("ingest", cached=False)
        display.started("split")
        display.finished("split", cached=True)
        display.started("train")
        display.failed("train")
    return text.getvalue()


def test_a_log_gets_a_line_for_each_step_and_no_animation() -> None:
    warning, first, second, third = shown(terminal=False).splitlines()
    assert warning == "warning: 2 pictures have equal pixels and contradicting labels"
    assert first.startswith("done    ingest") and first.endswith(" s")
    assert second.split() == ["done", "split", "from", "the", "cache"]
    assert third == "failed  train"


def test_a_terminal_sees_the_progress_of_the_step_at_work() -> None:
    assert (
        "contradicting labels" in shown(terminal=True)
        and "done    ingest" in shown(terminal=True)
        and "\x1b[" in shown(terminal=True)
    )
