"""One set of photographs in every layout that people have: read as what, or refused with which words.

Each layout is written into a folder of its own from the same files and read as ingest reads it. Content is equal where
the decoded pixels, the names of the labels and, in layouts that can hold them, groups and given splits are those of the
set. Images a second: facts and bytes of all images, not decoded, in CPU seconds. Run: `python -m benchmarks.formats`.
"""

import argparse
import csv
import hashlib
import io
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.layouts import READ, REFUSED, SPLITS, Item, Layout
from natix_lib.config import DataSource
from natix_lib.data.classes import resolve_classes
from natix_lib.data.root import local_root
from natix_lib.data.rows import Source
from natix_lib.data.sources import open_source
from natix_lib.errors import NatixError


def opened(folder: Path, scratch: Path, layout: Layout | None = None) -> Source:
    """The source as ingest opens it."""
    place = folder / layout.root if layout and layout.root else folder
    settings = DataSource(data_root=str(place), **dict(layout.settings if layout else ()))
    return open_source(local_root(settings, scratch), settings)


Fact = tuple[str, str, str | None, str | None]


def facts(source: Source, contents: Iterable[Any]) -> list[Fact]:
    """Of each image its pixels, the name of its label and, where the layout holds them, group and role."""
    ids, labels = [row.id for row in source.rows], [row.label for row in source.rows]
    names, indices, _ = resolve_classes(ids, labels, source.class_names, DataSource(data_root="."), None)
    return sorted(
        (pixels(content), names[index], row.group, row.given_split)
        for row, index, content in zip(source.rows, indices, contents, strict=True)
    )


def expected(items: Iterable[Item], layout: Layout) -> list[Fact]:
    return sorted(
        (
            pixels(item.content),
            item.label,
            item.group if layout.groups else None,
            SPLITS[item.split] if layout.splits else None,
        )
        for item in items
    )


def pixels(content: bytes) -> str:
    return hashlib.sha256(Image.open(io.BytesIO(content)).convert("RGB").tobytes()).hexdigest()


def photographs(root: Path, count: int) -> list[Item]:
    """Photographs spread over a set, their groups dealt out to the splits."""
    with (root / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows = [row for row in rows if row["source"] == "tracon"]
    chosen = rows[:: max(1, len(rows) // count)][:count]
    splits = list(SPLITS)
    return [
        Item(Path(row["image"]).name, (root / row["image"]).read_bytes(), row["label"], row["group"], splits[n % 3])
        for n, row in enumerate(chosen)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/roadwork-real"))
    parser.add_argument("--images", type=int, default=60)
    arguments = parser.parse_args()
    items = photographs(arguments.data, arguments.images)
    shown = Table(title=f"layouts of {len(items)} photographs")
    for column in ("layout", "read as, or refused with", "rows", "groups", "splits", "content equal", "images/s"):
        shown.add_column(column, overflow="fold")
    with tempfile.TemporaryDirectory() as temporary:
        every = [*READ.items(), *((name, Layout(write)) for name, write in REFUSED.items())]
        for number, (name, layout) in enumerate(every):
            folder, scratch = Path(temporary) / f"{number}", Path(temporary) / f"{number}-scratch"
            folder.mkdir()
            scratch.mkdir()
            layout.write(items, folder)
            start = time.process_time()
            try:
                source = opened(folder, scratch, layout)
                contents = list(source.images())
            except NatixError as error:
                words = str(error).replace(str(folder), "<root>").replace(str(scratch), "<scratch>")
                shown.add_row(name, f"refused: {words}", "", "", "", "", "")
                continue
            seconds = time.process_time() - start
            equal = facts(source, contents) == expected(items, layout)
            holds = ("yes" if layout.groups else "–", "yes" if layout.splits else "–")
            speed = f"{len(items) / seconds:,.0f}"
            shown.add_row(name, source.layout, str(len(source.rows)), *holds, "yes" if equal else "NO", speed)
    Console(width=200).print(shown)


if __name__ == "__main__":
    main()
