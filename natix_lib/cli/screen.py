"""The terminal that a command writes to: its width, and sentences folded between words.

A line that the terminal folds cannot be redrawn: only its last row is erased. So the width is asked of the terminal
itself. Rich believes COLUMNS instead, which programs export (whatever loads GNU readline does) and terminals outgrow.
"""

import os
import textwrap
from typing import IO

from rich.console import Console
from rich.text import Text


def columns(file: IO[str]) -> int:
    """Columns of the terminal that `file` is; 0 where it is none."""
    try:
        return os.get_terminal_size(file.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):  # no terminal, or a file without a descriptor
        return 0


def say(console: Console, text: str, style: str = "", indent: int = 2) -> None:
    """Print lines; on a terminal each is wrapped between words, what follows moved in."""
    if width := columns(console.file):
        lines = text.split("\n")
        moved = " " * indent
        text = "\n".join(
            "\n".join(textwrap.wrap(line, width, subsequent_indent=moved, break_long_words=False)) for line in lines
        )
    console.print(Text(text, style), soft_wrap=True)
