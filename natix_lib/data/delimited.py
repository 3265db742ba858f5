"""Delimited text: its encoding, its delimiter, its cells.

Read by the csv module and not by pandas, which takes a trailing comma in the rows for an index and then shifts every
column by one. A quote that is not closed where its row ends swallows the rows after it, so text over several lines is
refused where one of them is a row by itself. Text that is no UTF-8 is read as Windows-1252 where every other byte is a
letter of western Europe among ASCII ones; guessing among more encodings was rejected, because labels and groups that
are read wrongly are still read, only under names that nobody gave.
"""

import csv
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from natix_lib.config import Columns
from natix_lib.data.listing import IMAGE_SUFFIXES
from natix_lib.data.rows import FILE_NAME, Cells, plain_title
from natix_lib.errors import DataError

DELIMITERS = ",;\t|"
WESTERN = "cp1252"
# A letter that Latin-1 and Windows-1252 share, after or before an ASCII letter or another one; quotes, dashes, degrees
_LETTER = "[\xc0-\xd6\xd8-\xf6\xf8-\xff]"
_SURE = re.compile(
    rf"(?:[\x00-\x7f]|(?<=[A-Za-z]){_LETTER}{{1,2}}|{_LETTER}{{1,2}}(?=[a-z])|’|(?<![A-Za-z])[€‘“”„–—…«»§°\xa0]"
    r"|[€‘“”„–—…«»§°\xa0](?![A-Za-z]))*"
)

T = TypeVar("T")


class Made(Sequence[T]):
    """A sequence whose items are made when they are asked for: a million rows need no dictionary each."""

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        """`make` gives the item of a number from 0 to below `length`."""
        self._length, self._make = length, make

    def __len__(self) -> int:
        """How many items there are."""
        return self._length

    def __getitem__(self, number: Any) -> Any:
        """One item."""
        if not 0 <= number < self._length:
            raise IndexError(number)
        return self._make(number)


def decoded(content: bytes) -> tuple[str, str]:
    """The text of a table, and a warning where its encoding is not Unicode; "" where it is.

    Raises:
        ValueError: If it is in no encoding that can be told.
    """
    for marks, encoding in (((b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "utf-32"), ((b"\xff\xfe", b"\xfe\xff"), "utf-16")):
        if content.startswith(marks):
            return content.decode(encoding), ""
    try:
        text, warning = content.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        where = f"it is not UTF-8 (byte 0x{content[error.start]:02x} in line {line})"
        western = _western(content)
        if western is None:
            raise ValueError(f"{where}: save it as UTF-8") from error
        text, warning = western, f"{where} and is read as Windows-1252"
    if "\0" in text:
        raise ValueError("it holds NUL bytes: save it as text in UTF-8")
    return text, warning


def _western(content: bytes) -> str | None:
    """The text as Windows-1252, where it can hardly be anything else."""
    if re.search(rb"[\xc3\xc5][\x80-\xbf]|\xe2\x80[\x80-\xbf]", content):  # UTF-8 in parts
        return None
    try:
        text = content.decode(WESTERN)
    except UnicodeDecodeError:
        return None
    odd = [line for line in text.splitlines() if not line.isascii()]
    return text if all(_SURE.fullmatch(line) for line in odd) else None


def delimited(text: str, name: str, columns: Columns) -> Cells:
    """Cells of delimited text; the delimiter gives the header most known columns, then most columns.

    Raises:
        DataError: If it is empty, a row has more values than the header, or a quote is not closed in its row.
    """
    first = re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0]
    known = {plain_title(column) for column in (*columns.model_dump().values(), FILE_NAME)}

    def fit(delimiter: str) -> tuple[int, int]:
        cells = [plain_title(cell) for cell in next(csv.reader([first], delimiter=delimiter), [])]
        return len(known & set(cells)), len(cells)

    delimiter = max(DELIMITERS, key=fit)
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    end = 0
    reader = csv.reader(_lines(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            begin, end = end + 1, reader.line_num
            if not any(map(str.strip, cells)):
                continue
            if end > begin:
                _refuse_swallowed(cells, name, begin, header or cells, delimiter, columns.image)
            if not header:
                header = [cell.strip() for cell in cells]
                continue
            if len(cells) > len(header) and any(map(str.strip, cells[len(header) :])):
                raise DataError(f"{name} row {end} has {len(cells)} values, the header has {len(header)} columns")
            rows.append(cells)
            lines.append(end)
    except csv.Error as error:
        raise ValueError(_where(text, end, delimiter, error)) from error
    if not header:
        raise DataError(f"manifest {name} is empty")
    # a column without a name is the trailing comma, or an index that pandas wrote
    used = [
        number
        for number, title in enumerate(header)
        if title or any(cells[number:] and cells[number].strip() for cells in rows)
    ]
    titles = {number: header[number] or f"Unnamed: {number}" for number in used}

    def record(number: int) -> dict[str, Any]:
        cells = rows[number]
        return {title: cells[at] if at < len(cells) else None for at, title in titles.items()}

    def place(number: int) -> str:
        return f"{name} row {lines[number]}"

    return list(titles.values()), Made(len(rows), record), Made(len(rows), place), {}


def _lines(text: str) -> Iterator[str]:
    """Lines with their ends, as a file that is opened with newline="" gives them."""
    return (match[0] for match in re.finditer(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text))


def _refuse_swallowed(
    cells: Sequence[str], name: str, begin: int, header: Sequence[str], delimiter: str, image: str
) -> None:
    """Refuse text over several lines of which one, by itself, is a row that names an image.

    The last line of a cell in the column `image` may be an image's name and no more: that is the end of a name which
    holds a line break.
    """
    line, width = begin, len(header)
    for before, cell in enumerate(cells):
        is_name = before < width and plain_title(header[before]) in (plain_title(image), FILE_NAME)
        inner = re.split(r"\r\n|\r|\n", cell)
        for number, text in enumerate(inner if len(inner) > 1 else []):
            parts = [part.strip().strip('"') for part in text.split(delimiter)]
            # the first line has cells before the quote, and the last lost what stands after it
            least = {0: max(2, width - before), len(inner) - 1: 2 if is_name else 1}.get(number, width)
            if len(parts) >= least and any(part.lower().endswith(tuple(IMAGE_SUFFIXES)) for part in parts):
                raise DataError(
                    f"{name}: a quote opens in line {line} and takes in {text.strip()[:60]!r} of line {line + number}, "
                    "which names an image of its own: close the quote, or double it if it is part of the text"
                )
        line += len(inner) - 1


def _where(text: str, end: int, delimiter: str, error: csv.Error) -> str:
    """What csv says, and the line of the quote that it stumbled over.

    Args:
        text: All of the text.
        end: The last line of the last row that was read.
        delimiter: What stands between cells.
        error: What csv said.
    """
    rest = itertools.islice(_lines(text), end, None)
    # read leniently, the row's last cell is the one whose quote ran on
    cells = next(csv.reader(rest, delimiter=delimiter, skipinitialspace=True), [""])
    line = end + 1 + sum(len(re.findall(r"\r\n|\r|\n", cell)) for cell in cells[:-1])
    if "unexpected end" in str(error):
        return f"the quote that opens in line {line} is never closed"
    return f"{error}, in the row that begins in line {end + 1}"
