"""A data set looked at without decoding it: its rows, its classes, the sides of some pictures, a division.

Of a bucket only the listing, the tables and the sampled pictures are fetched; the other pictures are empty files of
the same names, so that the one reader of layouts serves both. Range reads of large Parquet were rejected for now: a
bucket gives whole objects, so what would be too much to fetch is refused.
"""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from natix_lib import storage
from natix_lib.config import DataSource, Split
from natix_lib.data.archives import ARCHIVES
from natix_lib.data.arrow_texts import HAS_ARROW
from natix_lib.data.beside import NOTES
from natix_lib.data.classes import resolve_classes
from natix_lib.data.decode import sides
from natix_lib.data.division import COLUMNS, Division, divide
from natix_lib.data.doubts import without_names, without_placeholders
from natix_lib.data.drives import CANNOT_TELL
from natix_lib.data.root import FETCHED, local_root
from natix_lib.data.rows import Row, Source, read_file
from natix_lib.data.sources import open_source
from natix_lib.data.tables import TABLES
from natix_lib.errors import DataError

SAMPLE, SAMPLE_REMOTE = 200, 32  # pictures whose headers are read: quartiles of their sides within a few percent
SECONDS = 10.0  # after which no more of them are read
MOST_FETCHED = 1 << 30  # bytes of tables and Parquet files of a bucket: some minutes on a slow line
THREADS = 16
NO_TIMES = "times and numbers in names, which tell drives, are read where natix[train] is installed"
WANTED = (*TABLES, *NOTES, *ARCHIVES, ".arrow")  # ends of the names of files that hold more than one picture


@dataclass(frozen=True)
class Seen:
    """A data set as it was seen.

    Attributes:
        rows: What is known of each image that has a label, placeholders emptied.
        unlabelled: Rows without a label, which are not in `rows`.
        layout: What they were read from, in words.
        class_names: Name of each class.
        counts: Images of each class, in the order of the names.
        positive: Classes of the binary score that the config would give; empty for none.
        sizes: Width and height of the sampled pictures that can be read, upright, pixels.
        unread: Name and reason of images that are not there or, of the sampled ones, cannot be read.
        missing: How many of `unread` are not there.
        division: How split would divide them by what the columns tell; None where it would refuse them.
        refusal: Why it would; "" where it would not.
        warnings: What ingest and split would warn of, but for images that name no drive.
    """

    rows: list[Row]
    unlabelled: int
    layout: str
    class_names: list[str]
    counts: list[int]
    positive: list[str]
    sizes: list[tuple[int, int]]
    unread: list[tuple[str, str]]
    missing: int
    division: Division | None
    refusal: str
    warnings: list[str]


def look(data: DataSource, split: Split, num_classes: int | None, scratch: Path) -> Seen:
    """Look at the data set that `data` names.

    Args:
        data: Where it is, and how it is read.
        split: How it would be divided.
        num_classes: Number of classes that it must have; None allows any.
        scratch: Empty folder for what is fetched from a bucket.

    Raises:
        NatixError: If ingest would refuse it before it decodes a picture, or it cannot be fetched.
    """
    uri = data.data_root
    root = local_root(data, scratch, _Tables(uri))
    remote = storage.is_remote(uri) and root == scratch / FETCHED
    source = open_source(root, data)
    labelled = [row.label is not None for row in source.rows]
    unlabelled = labelled.count(False)
    if unlabelled and any(labelled):
        source = source.only(labelled, f"{unlabelled} of {len(labelled)} rows have no label and are left out")
    rows, doubts = without_placeholders(source.rows)
    rows, names_left_out = without_names(rows)
    names, labels, positive = resolve_classes(
        [row.id for row in rows], [row.label for row in rows], source.class_names, data, num_classes
    )
    missing = [(row.id, "no such file") for number, row in enumerate(rows) if _is_missing(source, number)]
    sizes, unread = _sampled(source, data.max_pixels, uri if remote else None, root)
    division, refusal = _divided(rows, labels, names, split)
    return Seen(
        rows=rows,
        unlabelled=unlabelled,
        layout=source.layout,
        class_names=names,
        counts=np.bincount(labels, minlength=len(names)).tolist(),
        positive=positive,
        sizes=sizes,
        unread=[*missing, *unread],
        missing=len(missing),
        division=division,
        refusal=refusal,
        warnings=[
            line
            for line in [
                *source.warnings,
                *doubts,
                *names_left_out,
                *(division.warnings if division else []),
                *([] if HAS_ARROW else [NO_TIMES]),
            ]
            if not line.startswith(CANNOT_TELL)
        ],
    )


class _Tables:
    """Wants what tells about images, and refuses more of it than anybody would wait for."""

    def __init__(self, uri: str) -> None:
        self.uri, self.taken = uri, [0]

    def __call__(self, name: str, size: int) -> bool:
        if not name.lower().endswith(WANTED):
            return False
        self.taken.append(size)  # a list: threads ask at once
        if sum(self.taken) > MOST_FETCHED:
            raise DataError(
                f"{self.uri} holds tables and Parquet files of more than {MOST_FETCHED >> 30} GiB, such as {name}, and "
                "only whole ones can be fetched: name a local copy of them, or write the config by hand"
            )
        return True


def _is_missing(source: Source, number: int) -> bool:
    return source.file is not None and not source.file(number).exists()


def _divided(rows: list[Row], labels: list[int], names: list[str], split: Split) -> tuple[Division | None, str]:
    """The division by columns alone, or why there is none: every picture counts as unlike all others."""
    columns = {name: [getattr(row, name, None) for row in rows] for name in COLUMNS}
    columns |= {"label": list(labels), "sha256": [row.id for row in rows]}
    try:
        return divide(columns, names, split), ""
    except DataError as error:
        return None, str(error)


def _sampled(
    source: Source, max_pixels: int, uri: str | None, root: Path
) -> tuple[list[tuple[int, int]], list[tuple[str, str]]]:
    """Sides of pictures all over the set, or of its first where it lies in Parquet, and those that cannot be read."""
    sizes, unread = [], []
    end = time.monotonic() + SECONDS
    for number, content in _contents(source, uri, root):
        try:
            if isinstance(content, DataError):
                raise content
            sizes.append(sides(content, max_pixels))
        except DataError as error:
            unread.append((source.rows[number].id, str(error)))
        if time.monotonic() > end:
            break
    return sizes, unread


def _contents(source: Source, uri: str | None, root: Path) -> Iterator[tuple[int, bytes | DataError]]:
    """Numbers of rows and the bytes of their images."""
    if source.file is None:
        yield from itertools.islice(enumerate(source.images()), SAMPLE)
        return
    files, most = source.file, SAMPLE if uri is None else SAMPLE_REMOTE
    numbers = np.unique(np.linspace(0, len(source.rows) - 1, most).round().astype(int)).tolist()
    numbers = [number for number in numbers if files(number).exists()]
    if uri is not None:

        def fetch(number: int) -> None:
            name = files(number).relative_to(root).as_posix()
            storage.fetch_file(f"{uri.rstrip('/')}/{name}", files(number).parent)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fetch, numbers))
    for number in numbers:
        yield number, read_file(files(number))
