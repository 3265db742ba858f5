"""What a log line says of time."""

import pytest

from natix_lib.errors import LONGEST
from natix_lib.progress import WARNING, Lines, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1m 00s"), (90, "1m 30s"),
     (3599.6, "1h 00m"), (7500, "2h 05m"), (47.99 * 3600, "47h 59m"), (48 * 3600, "2 days"), (30 * 86400, "30 days")],
)  # fmt: skip
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_name_can_neither_steer_a_terminal_nor_break_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().say("warning: \x1b]0;x\x07red and no\nway, Müll")
    assert capsys.readouterr().out == "warning: \\x1b]0;x\\x07red and no\\nway, Müll\n"


@pytest.mark.parametrize("length", [LONGEST, LONGEST + 1, 300_000])
def test_a_long_line_keeps_its_ends_and_one_that_repeats_an_error_is_whole(
    capsys: pytest.CaptureFixture[str], length: int
) -> None:
    text = f"group {'x' * (length - 15)} is large"
    Lines().say(WARNING + text)
    line = capsys.readouterr().out.removesuffix("\n")
    assert line.startswith("warning: group x") and line.endswith("x is large")
    assert len(line) == len(WARNING) + min(length, LONGEST) and (line == WARNING + text) == (length <= LONGEST)
