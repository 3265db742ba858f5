"""Folders of files to be read; images are never decoded here, so any bytes serve."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from natix_lib.config import DataSource
from natix_lib.data.rows import Source
from natix_lib.data.sources import open_source


def files(root: Path, *names: str, text: str = "x") -> Path:
    """Write `text` to files below `root`."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def images(root: Path, *folders: str, count: int = 2) -> Path:
    """Write images 0.jpg, 1.jpg, ... into folders below `root`."""
    return files(root, *(f"{folder}/{number}.jpg" for folder in folders for number in range(count)))


def opened(root: Path, **settings: Any) -> Source:
    """The source that a folder is read as."""
    return open_source(root, DataSource(data_root=str(root), **settings))


def reading(source: Source) -> dict[str, tuple[object, str | None]]:
    """Of each image its label and its role."""
    return {row.id: (row.label, row.given_split) for row in source.rows}


def lines(warnings: Iterable[str]) -> str:
    """Warnings as one text."""
    return "\n".join(warnings)
