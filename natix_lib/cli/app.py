"""The command line: `natix run`, one command for each step, `predict`, `serve`, `config`, and what a first try needs.

Every error a person can cause is one line on stderr and exit code 2; a traceback is a bug. What a command needs is
imported when it runs, so that help appears at once.
"""

import io
import os
import sys
from typing import Annotated, NoReturn

import typer

from natix_lib import __version__
from natix_lib.cli.cache import cache
from natix_lib.cli.configs import show_config
from natix_lib.cli.drawn import backbone, draw
from natix_lib.cli.extras import missing
from natix_lib.cli.init import init
from natix_lib.cli.pipeline import demo, run
from natix_lib.cli.scoring import predict, serve
from natix_lib.cli.steps import step_command, step_help
from natix_lib.contracts import STEPS
from natix_lib.errors import NatixError

app = typer.Typer(
    help="Labelled street images to a roadwork classifier that can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
STEP_PANEL = "Steps, one at a time on files"

app.command()(init)
app.command()(run)
app.command()(predict)
app.command()(serve)
app.command("config")(show_config)
app.add_typer(cache, name="cache")
app.command()(draw)
app.command()(backbone)
app.command()(demo)
for _name in STEPS:
    app.command(_name, help=step_help(_name), rich_help_panel=STEP_PANEL)(step_command(_name))


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Handle the options that need no command."""
    if version:
        typer.echo(f"natix {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; exit 2 with one line for every error that a person can cause."""
    if sys.stdout is None:  # its number would be given to the next file that is opened
        os.write(2, b"error: standard output is closed: send it to a file or to /dev/null\n")
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that are no text, and terminals that are not UTF-8
    try:
        app()
        sys.stdout.flush()
    except NatixError as error:
        _end(error)
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] in ("natix_lib", "natix_components", "natix_pipelines"):
            raise
        _end(missing(error.name))
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OSError as error:  # a disk that is full, a place that may not be written
        if error.filename is None:
            _discard_output()
        _end(NatixError(f"{error.filename or 'cannot write the output'}: {error.strerror or error}"))


def _end(error: NatixError) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    sys.exit(2)


def _discard_output() -> None:
    """Let what Python still holds for stdout go nowhere, so that it does not fail once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
