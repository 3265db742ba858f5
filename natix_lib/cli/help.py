"""How the command line is listed and how a command's help ends: what it takes, what it gives, an example.

Help is plain text. Typer's boxes were left out: they cost a fifth of a second at every `--help`, because they load a
Markdown renderer, and at 40 columns half of each line is frame. Click takes 50 columns at the least, so the width is
asked here.
"""

import shutil
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from natix_lib.cli.extras import needing

COMMANDS = "Commands"
STEPS = "Steps, one at a time on files"
WIDEST, NARROWEST = 80, 30  # columns


class Groups(TyperGroup):
    """A list of commands under their headings, each with its whole first sentence."""

    def get_command(self, context: Any, name: str) -> Any:
        """A command; its arguments are called by their names alone, without the types of Python."""
        command = super().get_command(context, name)
        for parameter in command.params if command else ():
            if parameter.param_type_name == "argument":
                parameter.display_type_rich = lambda ctx: None  # type: ignore[attr-defined]
        return command

    def list_commands(self, context: Any) -> list[str]:
        """In the order in which they were registered."""
        return list(self.commands)

    def format_commands(self, context: Any, formatter: Any) -> None:
        """Write a section for each heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            heading = getattr(command, "rich_help_panel", None)
            heading = heading if isinstance(heading, str) else COMMANDS
            sections.setdefault(heading, []).append((name, command.get_short_help_str(limit=1000)))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def columns() -> int:
    """Columns that help may take."""
    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns))


def register(
    app: typer.Typer,
    name: str,
    function: Callable[..., None],
    *,
    takes: str,
    gives: str,
    example: str,
    **options: Any,
) -> None:
    """Add a command.

    Args:
        app: The command line.
        name: The command's name; what it needs is checked before `function` runs.
        function: Its options are the command's, and its docstring's first sentence says what it does.
        takes: What it reads.
        gives: What it writes, and to where.
        example: A command line that works as it stands where its files are.
        options: As Typer's `command` takes them.
    """
    epilog = f"Takes: {takes}.\n\nGives: {gives}.\n\nExample:\n\n\b\n  {example.replace(chr(10), chr(10) + '  ')}"
    app.command(name, epilog=epilog, **options)(needing(name, function))
