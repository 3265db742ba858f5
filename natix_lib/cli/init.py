"""`natix init`: a look at a folder of pictures, and a config for it.

The place is written as an absolute path, because a relative one holds for one working folder only; a link stays the
link that the person has named. `--set` takes what an unclear layout asks for, and goes into the config.
"""

import copy
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from natix_lib.cli.extras import OF_A_RUN, is_here, missing
from natix_lib.cli.options import Overrides, new_file, path_of
from natix_lib.errors import ConfigError, printable
from natix_lib.files import JsonDict, write_bytes

if TYPE_CHECKING:
    from natix_lib import config
    from natix_lib.survey.words import Note


def place_of(text: str) -> str:
    """A folder, made absolute, or a bucket's prefix that a person has typed.

    Raises:
        ConfigError: If it is neither.
    """
    from natix_lib import grammar  # here, because it brings pydantic

    try:
        if grammar.scheme(text):
            return grammar.place(text)
    except ValueError as error:
        raise ConfigError(f"{text} {error}") from error
    return str(path_of(text).absolute())


def values_of(place: str, overrides: list[str]) -> JsonDict:
    """The config's values of which a person has said no more than where the data is, and some keys."""
    from natix_lib.config.load import assign

    values: JsonDict = {"data": {"data_root": place_of(place)}}
    for override in overrides:
        assign(values, override)
    return values


def filled(values: JsonDict, policy: str) -> "config.Config":
    """A config of these values; what is no matter of data is filled in where it must be given."""
    from natix_lib import config
    from natix_lib.survey.machine import SMALL

    whole = copy.deepcopy(values)
    whole.setdefault("model", {}).setdefault("backbone_id", SMALL.name)
    whole.setdefault("export", {}).setdefault("policy", policy)
    return config.parse(config.Config, whole)


def init(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="Folder, archive, gs:// or s3:// prefix of labelled images.", show_default=False
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Config to write; must not exist.")
    ] = "natix.yaml",
    overrides: Overrides = None,
) -> None:
    """Look at a data set and at this machine, say what natix makes of them, and write a commented config."""
    from natix_lib import storage
    from natix_lib.steps.certifiable import terms_of
    from natix_lib.survey.draft import draft, text
    from natix_lib.survey.look import look
    from natix_lib.survey.machine import this_machine
    from natix_lib.survey.words import notes

    path = new_file(output)
    given = values_of(data, overrides or [])
    asked = filled(given, "calibrate")
    if storage.is_remote(asked.data.data_root):
        typer.echo(f"looking at {data}: its listing, its tables and some pictures are fetched", err=True)
    with tempfile.TemporaryDirectory() as scratch:
        seen = look(asked.data, asked.split, asked.model.num_classes, Path(scratch))
    machine = this_machine()
    terms = terms_of(asked.scrc) if asked.export.policy == "calibrate" else None
    said = notes(seen, asked.split, terms, asked.model.image_size, machine)
    go_on = f"natix run --config {shlex.quote(output)} --output runs/first"
    head = (
        f"Written by natix init; it runs with {go_on}\n"
        f"Keys that are not here keep their defaults: natix config --config {shlex.quote(output)} prints all, "
        "natix config --explain KEY explains one."
    )
    write_bytes(path, text(draft(given, seen, machine, terms), said, head).encode())
    _show(said)
    lacking = next((module for module in OF_A_RUN if not is_here(module)), None)
    typer.echo(f"\nconfig  {output}\nnext    {go_on}{(lacking and f', after {missing(lacking)}') or ''}")


def _show(said: "list[Note]") -> None:
    """The notes in two columns, as wide as the screen."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for note in said:
        table.add_row(Text(note.title, "yellow" if note.doubtful else "green"), Text(printable(note.text)))
    Console(highlight=False, soft_wrap=False).print(table)
