"""The help as a person reads it: complete, within the terminal's columns, plain, and there at once."""

import os
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from natix_lib import cli
from natix_lib.contracts import RENEWING, STEPS
from tests.cli.test_cli import ROOT

COMMANDS = [name for group in [typer.main.get_command(cli.app)] for name in group.commands]  # type: ignore[attr-defined]
BY_HAND = (
    "init",
    "run",
    "recalibrate",
    "predict",
    "serve",
    "review",
    "audit",
    "verify",
    "config",
    "doctor",
    "draw",
    "backbone",
    "demo",
    *STEPS,
    *RENEWING,
)


def shown(*arguments: str, columns: int = 80) -> str:
    result = CliRunner().invoke(cli.app, list(arguments), terminal_width=columns)
    assert result.exit_code == 0, result.output
    return result.output


def test_natix_alone_shows_the_help_and_is_no_error() -> None:
    assert shown() == shown("-h") == shown("--help")
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", shown(), re.MULTILINE), name


@pytest.mark.parametrize("command", BY_HAND)
def test_every_help_has_a_sentence_what_it_takes_what_it_gives_and_an_example(command: str) -> None:
    text = shown(command, "-h")
    assert text == shown(command, "--help")
    for part in (r"^  [A-Z][^\n]+", r"^  Takes: ", r"^  Gives: ", r"^  Example:\n\n    natix " + command):
        assert re.search(part, text, re.MULTILINE), part
    assert not re.search(r"_path\b|_of\b|\bTEXT\b|\bINTEGER\b|<bool>|[│╭╰\x1b]", text)


@pytest.mark.parametrize("columns", [80, 40])
def test_help_keeps_to_the_columns_of_the_terminal(columns: int) -> None:
    for arguments in ([], *([name] for name in BY_HAND)):
        before_example = shown(*arguments, "-h", columns=columns).partition("Example:")[0]
        assert max(map(len, before_example.splitlines())) <= columns


def test_the_example_of_a_step_names_each_of_its_inputs() -> None:
    for step, contract in STEPS.items():
        example = shown(step, "-h").partition("Example:")[2]
        assert set(re.findall(r"--([a-z-]+)", example)) == {name.replace("_", "-") for name in contract.inputs}


def test_help_loads_neither_configs_nor_what_draws_boxes() -> None:
    code = (
        "import sys; sys.argv = ['natix', '--help']\n"
        "try: from natix_lib.cli import main; main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    loaded = set(done.stderr.split())
    assert done.stdout.startswith("Usage: natix")
    assert not loaded & {"pydantic", "yaml", "numpy", "typer.rich_utils", "rich.markdown", "natix_lib.config"}


def test_a_shell_gets_completion() -> None:
    environment = {**os.environ, "_NATIX_COMPLETE": "complete_bash", "COMP_WORDS": "natix ca", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "natix_lib.cli"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert "calibrate" in done.stdout.split(), done.stderr
