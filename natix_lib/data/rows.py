"""An image's row, as every source gives it, and the rules of its cells.

Cells are text: `None` is a class of roadwork data sets and must never be taken for a missing value. A whole number of
a float column, or of text that was one, is written without its `.0`, as group, source_id and label: one drive is 7 in a
file of whole numbers and 7.0 in a file where another row has none. A word for no value is none in lat and lon, where no
other word can stand; `doubts` says where one stands as a group, a source or a class.
"""

import itertools
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

from natix_lib.config import Columns
from natix_lib.contracts import parse_role
from natix_lib.data.decode import file_bytes
from natix_lib.data.placeholders import is_placeholder
from natix_lib.errors import ContractError, DataError, shortened

TRUE, FALSE = {"true", "1", "1.0", "yes"}, {"false", "0", "0.0", "no"}
WHOLE_FLOAT = re.compile(r"(?:-(?=0\.))?(0|-?[1-9][0-9]*)\.0+")  # 7.0, -0.0; not 07.0 and 1e0, which may be codes
MOST_DIGITS = 1000  # of a whole number; Python's own limit is 4300
# Of a table: its columns, a record of each row, where each row stands, and the type of columns without plain cells.
Cells = tuple[list[str], Sequence[dict[str, Any]], Sequence[str], dict[str, str]]
FILE_NAME = "file_name"  # Hugging Face's and COCO's word for the image column
UNNAMED = "Unnamed"  # tag of a JSON key or Parquet column that is ""
NO_PATH = PureWindowsPath()
EXAMPLES = 3  # names in a line of warning; a log line stays readable
LONGEST_EXAMPLE = 200  # characters of such a name: enough for two paths


@dataclass(frozen=True)
class Row:
    """An image's facts; None where the source says nothing."""

    id: str
    label: str | int | None
    group: str | None = None
    source_id: str | None = None
    captured_at: str | None = None
    given_split: str | None = None
    lat: float | None = None
    lon: float | None = None
    is_synthetic: bool | None = None
    tags: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Rows, and their images in the same order: bytes, or the reason why there are none.

    Attributes:
        rows: One row for each image.
        images: Starts a new pass over the images.
        layout: Where they were found, in words: "in a folder for each class".
        file: The file of a row's image, by the row's number; None where images are no files of their own.
        class_names: Names that the source declares for integer labels; empty when it declares none.
        warnings: What the owner of the data should know: what was left out, and how an unclear layout was read.
        blocks: Where images are no files of their own, the files that hold them, in order: how many images each has,
            and what starts a pass over them. () leaves `images_of` to read what lies before as well.
    """

    rows: list[Row]
    images: Callable[[], Iterator[bytes | DataError]]
    layout: str = ""
    file: Callable[[int], Path] | None = None
    class_names: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    blocks: Sequence[tuple[int, Callable[[], Iterator[bytes | DataError]]]] = ()

    def images_of(self, numbers: range) -> Iterator[bytes | DataError]:
        """The images of some neighbouring rows; of others as few as possible are read."""
        if len(numbers) == len(self.rows):
            return self.images()
        if not numbers:
            return iter(())
        if (file := self.file) is not None:
            return (read_file(file(number)) for number in numbers)
        skipped, first = 0, 0  # images and blocks that end before the first wanted one
        for count, _ in self.blocks:
            if skipped + count > numbers.start:
                break
            skipped, first = skipped + count, first + 1
        passes = [start for _, start in self.blocks[first:]] or [self.images]
        images = itertools.chain.from_iterable(start() for start in passes)
        return itertools.islice(images, numbers.start - skipped, numbers.stop - skipped)

    def only(self, kept: Sequence[bool], warning: str) -> "Source":
        """The source without the rows that are not `kept`, and why."""
        numbers = list(itertools.compress(range(len(self.rows)), kept))
        file = self.file
        return replace(
            self,
            rows=[self.rows[number] for number in numbers],
            images=lambda: itertools.compress(self.images(), kept),
            blocks=list(self._blocks_of(kept)),
            file=None if file is None else lambda number: file(numbers[number]),
            warnings=[*self.warnings, warning],
        )

    def _blocks_of(self, kept: Sequence[bool]) -> Iterator[tuple[int, Callable[[], Iterator[bytes | DataError]]]]:
        """The blocks without the rows that are not `kept`."""
        start = 0
        for count, images in self.blocks:
            part = kept[start : start + count]
            yield sum(part), partial(_compressed, images, part)
            start += count


def _compressed(images: Callable[[], Iterator[bytes | DataError]], kept: Sequence[bool]) -> Iterator[bytes | DataError]:
    return itertools.compress(images(), kept)


def readable(name: str) -> str:
    r"""A file name as valid text: a byte that is no UTF-8 becomes `\udcff`, so that it can be printed and stored."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def plain_title(title: str) -> str:
    """A column's title without case, and without spaces or U+FEFF around it."""
    return title.strip("\ufeff\u200b \t\r\n").casefold()


def some(names: Iterable[object]) -> str:
    """The first of some names, of long ones the two ends, and how many more there are."""
    every = [readable(str(name)) for name in names]
    rest = len(every) - EXAMPLES
    return ", ".join(shortened(name, LONGEST_EXAMPLE) for name in every[:EXAMPLES]) + (
        f" and {rest} more" if rest > 0 else ""
    )


def cell(value: Any) -> str | None:
    """A cell as text; empty or missing is None."""
    if value is None or value != value:
        return None
    return readable(value if type(value) is str else str(value)).strip() or None


def name_cell(value: Any) -> str | None:
    """A cell that names something: a whole float is written as the whole number that it is."""
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    text = cell(value)
    whole = WHOLE_FLOAT.fullmatch(text or "")
    return whole[1] if whole else text  # no int: it may have more digits than Python turns into one


def whole_number(text: str) -> int:
    """The whole number that `text` writes.

    Raises:
        ValueError: If it has more than MOST_DIGITS digits.
    """
    if len(text) > MOST_DIGITS:
        raise ValueError(f"it holds a number of {len(text)} digits, at most {MOST_DIGITS} are read")
    return int(text)


def label_cell(value: Any, column: str, place: str) -> str | int | None:
    """A class: text, or a whole number.

    Raises:
        DataError: If it is a list, bytes or a fraction, or holds a line break.
    """
    if isinstance(value, list | dict | bytes):
        raise DataError(f"{place}: column {column} must hold one class, it is {type(value).__name__} {str(value)[:60]}")
    if isinstance(value, float | Decimal) and value == value:
        if not math.isfinite(value) or value != int(value):
            raise DataError(f"{place}: column {column} must hold a class, got the fraction {value}")
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = name_cell(value)
    if text and len(text.splitlines()) > 1:
        raise DataError(
            f"{place}: column {column} holds a line break, which a quote that is not closed makes: {text[:60]!r}"
        )
    return text


def image_path(value: Any, place: str) -> str:
    """The path of an image below its folder, `./` and `//` taken out, so that an image has one id.

    Raises:
        DataError: If it is empty, absolute, an address, leaves the folder, or is written with backslashes.
    """
    text = cell(value)
    if text is None:
        raise DataError(f"{place}: image is empty")
    windows = PureWindowsPath(text) if "\\" in text or ":" in text else NO_PATH
    if "\\" in text and not windows.is_absolute():
        raise DataError(f"{place}: image must be a path with / between its folders, got {text!r}")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or "://" in text or windows.drive or ".." in parts or not parts:
        raise DataError(f"{place}: image must be a path below data.data_root, got {text!r}")
    return "/".join(parts)


def row_of(name: str, record: dict[str, Any], free: Iterable[str], columns: Columns, place: str) -> Row:
    """A row of a table.

    Args:
        name: The row's id.
        record: The row's cells by column.
        free: Columns that become tags.
        columns: Which column is what.
        place: Where the row stands, for messages.

    Raises:
        DataError: If a cell breaks its rule.
    """

    def text(key: str) -> str | None:
        return cell(record.get(getattr(columns, key)))

    split, synthetic = text("split"), text("is_synthetic")
    if synthetic is not None and synthetic.lower() not in TRUE | FALSE:
        raise DataError(f"{place}: is_synthetic must be true or false, got {synthetic!r}")
    try:
        role = parse_role(split) if split is not None else None
    except ContractError as error:
        raise DataError(f"{place}: {error}") from error
    lat, lon = _degrees(text("lat"), "lat", 90, place), _degrees(text("lon"), "lon", 180, place)
    if (lat is None) != (lon is None):
        raise DataError(f"{place}: lat and lon must both be given or both be empty, got {lat} and {lon}")
    return Row(
        id=name,
        label=_one(label_cell(record.get(columns.label), columns.label, place)),
        group=_one(name_cell(record.get(columns.group))),
        source_id=name_cell(record.get(columns.source_id)),
        captured_at=text("captured_at"),
        given_split=role,
        lat=lat,
        lon=lon,
        is_synthetic=None if synthetic is None else synthetic.lower() in TRUE,
        tags={key or UNNAMED: _one(cell(record.get(key))) for key in free},
    )


def _one(value: Any) -> Any:
    """The same text for equal ones: what repeats in a million rows is held once."""
    return sys.intern(value) if type(value) is str else value


def _degrees(value: str | None, key: str, limit: float, place: str) -> float | None:
    if value is None:
        return None
    try:
        degrees = float(value)
    except ValueError:
        degrees = math.nan
    if math.isnan(degrees) and is_placeholder(value):
        return None
    if not abs(degrees) <= limit:
        raise DataError(f"{place}: {key} must be a number within +-{limit:g}, got {value!r}")
    return degrees


def with_role(row: Row, role: str | None, who: str, by: str) -> Row:
    """The row with the role that its place gives it; None gives it none.

    Args:
        row: A row, which may have a role by a column.
        role: The role by its place.
        who: What is named, for messages.
        by: What gives the role, for messages.

    Raises:
        DataError: If the two differ.
    """
    if role is None:
        return row
    if row.given_split not in (None, role):
        raise DataError(f"{who} is {role} by {by} and {row.given_split} by its split column")
    return replace(row, given_split=role)


def refuse_repeats(rows: Sequence[Row], places: Sequence[str]) -> None:
    """Refuse an image that has two rows.

    Raises:
        DataError: With how many, and both rows of the first.
    """
    first: dict[str, int] = {}
    repeats = []
    for number, row in enumerate(rows):
        if first.setdefault(row.id, number) != number:
            repeats.append(number)
    if repeats:
        again = repeats[0]
        before = first[rows[again].id]
        more = f"; {len(repeats)} rows in all repeat an image" if len(repeats) > 1 else ""
        raise DataError(
            f"image {rows[again].id} is listed twice: {places[before]} (label {rows[before].label}) and "
            f"{places[again]} (label {rows[again].label}){more}"
        )


def read_file(path: Path) -> bytes | DataError:
    """A file's bytes, or why there are none, as `decode.file_bytes` tells it."""
    try:
        return file_bytes(path)
    except DataError as error:
        return error
