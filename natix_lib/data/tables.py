"""Tables that list images and their labels: delimited text, JSON, JSON lines and Parquet, also compressed by gzip.

Delimited text is read by the csv module and not by pandas, which takes a trailing comma in the rows for an index and
then shifts every column by one. A quote that never ends, a row longer than the header and text that is not UTF-8 are
refused: each would lose or garble rows. A table called metadata.* names its images from its own folder, as in Hugging
Face's imagefolder; any other names them from data.data_root. Parquet has a module of its own, which alone imports
pyarrow: `natix predict` reads manifests where that is not installed.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from natix_lib.config import Columns
from natix_lib.data.listing import Listing, role_of_folders
from natix_lib.data.rows import Cells, Row, Source, image_path, read_file, readable, refuse_repeats, row_of, some
from natix_lib.errors import DataError

BOOKS = (".xlsx", ".xls", ".ods", ".zip", ".bz2", ".xz", ".zst", ".npz", ".npy", ".pkl", ".db", ".sqlite", ".feather")
DELIMITERS = ",;\t|"
FILE_NAME = "file_name"  # Hugging Face's word for the image column
# Columns that people may mean by a key of data.columns and that are not read as it: said where the key has no column.
NEAR = {
    "split": {"subset", "partition", "split_name"},
    "lat": {"latitude", "gps_lat"},
    "lon": {"longitude", "lng", "long", "gps_lon"},
    "group": {"drive", "drive_id", "sequence", "sequence_id", "group_id"},
    "source_id": {"source"},
    "captured_at": {"timestamp", "captured"},
    "is_synthetic": {"synthetic"},
}


@dataclass(frozen=True)
class Table:
    """A table's cells.

    Attributes:
        name: The file's path below the data set's folder.
        folder: The folder that image names start from, below the data set's folder.
        header: Columns, without those of lists and the like.
        records: Cells of each row by column.
        places: Where each row stands, for messages.
        nested: Columns of lists, records or bytes, and their type.
    """

    name: str
    folder: Path
    header: list[str]
    records: list[dict[str, Any]]
    places: list[str]
    nested: dict[str, str] = field(default_factory=dict)


def read_table(root: Path, path: Path, columns: Columns) -> Table:
    """Read the table at `path`, a file or a folder of Parquet part files, relative to `root`.

    Raises:
        DataError: If it cannot be read, has no row, lacks a column, or a column has no plain type.
    """
    name = readable(path.as_posix())
    suffix = path.name.lower().removesuffix(".gz")
    if suffix.endswith(BOOKS):
        raise DataError(f"manifest {name} cannot be read: save it as {', '.join(TEXTS)} or .parquet")
    try:
        if suffix.endswith(".parquet"):
            from natix_lib.data.parquet_tables import read_parquet

            header, records, places, nested = read_parquet(root, path)
        else:
            content = (root / path).read_bytes()
            if path.name.lower().endswith(".gz"):
                content = gzip.decompress(content)
            read = next((TEXTS[ending] for ending in TEXTS if suffix.endswith(ending)), _delimited)
            header, records, places, nested = read(_decoded(content), name, columns)
    except DataError:
        raise
    except (ValueError, csv.Error, EOFError, zlib.error, RecursionError, OSError) as error:
        raise DataError(f"manifest {name} cannot be read: {error}") from error
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise DataError(f"{name} has the column {repeated[0]!r} twice")
    folder = path.parent if path.name.lower().startswith("metadata.") else Path()
    return Table(name, folder, header, records, places, nested)


def as_written(name: str, header: Sequence[str], columns: Columns) -> Columns:
    """The columns as a table writes them: in any case, with spaces or U+FEFF around; image also as `file_name`.

    Raises:
        DataError: If two columns of the table can be one of them and neither is written exactly so.
    """
    written: dict[str, str] = {}
    for key, column in columns.model_dump().items():
        words = [column, FILE_NAME] if key == "image" and column == Columns().image else [column]
        for word in words:
            same = [word] if word in header else [title for title in header if _plain(title) == _plain(word)]
            if len(same) > 1:
                raise DataError(f"{name} has the columns {some(map(repr, same))}, which are one name: rename one")
            if same:
                written[key] = same[0]
                break
    return columns.model_copy(update=written)


def require_named_columns(headers: Mapping[str, Sequence[str]], columns: Columns) -> None:
    """Refuse a column that the config names and no table of the set has.

    Args:
        headers: Columns of each table, by its name.
        columns: The columns that the settings name.

    Raises:
        DataError: With the key, and the columns that there are.
    """
    every = dict.fromkeys(title for header in headers.values() for title in header)
    have = {_plain(title) for title in every}
    for key, column in columns.model_dump().items():
        if column != getattr(Columns(), key) and _plain(column) not in have:
            raise DataError(
                f"data.columns.{key} is {column!r}, which is no column of {some(headers) or 'the set, it has no table'}"
                + (f"; columns are {', '.join([readable(str(title)) for title in every][:20])}" if every else "")
            )


def near_warnings(headers: Mapping[str, Sequence[str]], columns: Columns) -> list[str]:
    """A line when columns that people may mean by a key are not read as it."""
    pairs: dict[str, str] = {}
    for name, header in headers.items():
        these = as_written(name, header, columns).model_dump()
        for title in header:
            for key, column in these.items():
                near = NEAR.get(key, set()) if column not in header else {_plain(column)}
                if title not in these.values() and _plain(title) in near:
                    pairs[f"column {title} is not read as {key}: set data.columns.{key}"] = title
    return ["; ".join(pairs)] if pairs else []


def _plain(title: str) -> str:
    return title.strip("\ufeff\u200b \t\r\n").casefold()


def require_columns(name: str, header: Sequence[str], nested: dict[str, str], columns: Columns) -> Columns:
    """The columns as the table writes them.

    Raises:
        DataError: If the image or label is not there, or a column that natix reads has no plain type.
    """
    columns = as_written(name, [*header, *nested], columns)
    for key, column in columns.model_dump().items():
        if column in nested and column not in header:
            hint = "; set data.format: parquet for a table that holds images" if key == "image" else ""
            raise DataError(
                f"{name}: column {column} (data.columns.{key}) must hold text or numbers, it is {nested[column]}{hint}"
            )
        if key in ("image", "label") and column not in header:
            raise DataError(
                f"{name} has no column {column!r} (data.columns.{key}); it has {', '.join(map(str, header[:12]))}"
            )
    return columns


def free_columns(header: Sequence[str], columns: Columns) -> list[str]:
    """Columns that become tags."""
    known = set(columns.model_dump().values())
    return [column for column in header if column not in known]


def nested_warning(nested: dict[str, str]) -> list[str]:
    """What is said about columns that cannot become tags."""
    if not nested:
        return []
    return [
        f"left out {len(nested)} columns of lists, records or bytes: {some(f'{k} ({v})' for k, v in nested.items())}"
    ]


def from_tables(listing: Listing, tables: Sequence[Table], columns: Columns, roles: bool) -> Source:
    """Rows of tables, and their images.

    Args:
        listing: What lies in the data set's folder.
        tables: One, or one for each split.
        columns: Which column is what.
        roles: Whether the folders of an image, where they name a split role, give it that role.

    Raises:
        DataError: If a cell breaks its rule, an image is listed twice, or a folder and a split column contradict.
    """
    rows: list[Row] = []
    places: list[str] = []
    nested: dict[str, str] = {}
    headers = {table.name: [*table.header, *table.nested] for table in tables}
    require_named_columns(headers, columns)
    for table in tables:
        these = require_columns(table.name, table.header, table.nested, columns)
        free = free_columns(table.header, these)
        nested |= table.nested
        above = f"{readable(table.folder.as_posix())}/" if table.folder.parts else ""
        for record, place in zip(table.records, table.places, strict=True):
            row = row_of(above + image_path(record.get(these.image), place), record, free, these, place)
            role = role_of_folders(row.id.split("/")[:-1]) if roles else None
            if role and row.given_split not in (None, role):
                raise DataError(f"{place}: {row.id} is {role} by its folder and {row.given_split} by its split column")
            rows.append(Row(**{**vars(row), "given_split": role}) if role else row)
            places.append(place)
    refuse_repeats(rows, places)
    names = {row.id for row in rows}
    read = tuple(f"{table.name}/" for table in tables)

    def file(number: int) -> Path:
        return listing.root / rows[number].id

    def images() -> Iterator[bytes | DataError]:
        return (read_file(file(number)) for number in range(len(rows)))

    def is_used(name: str) -> bool:
        return name in names or f"{name}/".startswith(read)

    used = [path for path in listing.files if is_used(readable(path.as_posix()))]
    warnings = [*listing.left_out(used), *nested_warning(nested), *near_warnings(headers, columns)]
    in_roles = (
        []
        if roles or any(row.given_split for row in rows)
        else [row for row in rows if role_of_folders(row.id.split("/")[:-1])]
    )
    if in_roles:
        warnings.append(
            f"{len(in_roles)} of {len(rows)} images lie in folders named by a split role, which give none to the rows "
            f"of {tables[0].name}: a split column would; {some(row.id for row in in_roles)}"
        )
    layout = f"listed in {some(table.name for table in tables)}"
    return Source(rows, images, layout, file, warnings=warnings)


def _decoded(content: bytes) -> str:
    for marks, encoding in (((b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "utf-32"), ((b"\xff\xfe", b"\xfe\xff"), "utf-16")):
        if content.startswith(marks):
            return content.decode(encoding)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"it is not UTF-8 (byte 0x{content[error.start]:02x} in line {line}): save it as UTF-8"
        ) from error
    if "\0" in text:
        raise ValueError("it holds NUL bytes: save it as text in UTF-8")
    return text


def _delimited(text: str, name: str, columns: Columns) -> Cells:
    """Cells of delimited text; the delimiter gives the header most known columns, then most columns."""
    first = re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0]
    known = {_plain(column) for column in (*columns.model_dump().values(), FILE_NAME)}

    def fit(delimiter: str) -> tuple[int, int]:
        cells = [_plain(cell) for cell in next(csv.reader([first], delimiter=delimiter), [])]
        return len(known & set(cells)), len(cells)

    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=fit), skipinitialspace=True, strict=True
    )
    filled = (cells for cells in reader if any(cell.strip() for cell in cells))
    header = [cell.strip() for cell in next(filled, [])]
    if not header:
        raise DataError(f"manifest {name} is empty")
    records, places = [], []
    for cells in filled:
        place = f"{name} row {reader.line_num}"
        if any(cell.strip() for cell in cells[len(header) :]):
            raise DataError(f"{place} has {len(cells)} values, the header has {len(header)} columns")
        records.append(cells[: len(header)])
        places.append(place)
    # a column without a name is the trailing comma, or an index that pandas wrote
    used = [number for number, title in enumerate(header) if title or any(_at(cells, number) for cells in records)]
    titles = {number: header[number] or f"Unnamed: {number}" for number in used}
    return (
        list(titles.values()),
        [{title: _at(cells, number) for number, title in titles.items()} for cells in records],
        places,
        {},
    )


def _at(cells: list[str], number: int) -> str | None:
    return cells[number].strip() if number < len(cells) else None


def _from_json(text: str, name: str, columns: Columns) -> Cells:
    records = _json_records(text, columns)
    header, nested = _columns_of(records)
    return header, records, [f"{name} entry {number}" for number in range(1, len(records) + 1)], nested


def _json_records(text: str, columns: Columns) -> list[dict[str, Any]]:
    """Records of a list of objects, or of an object from image to label or to an object."""
    document = json.loads(text, object_pairs_hook=_unique)
    if isinstance(document, list) and all(isinstance(entry, dict) for entry in document):
        return document
    if isinstance(document, dict):
        if all(isinstance(value, dict) for value in document.values()):
            return [{columns.image: name, **value} for name, value in document.items()]
        if not any(isinstance(value, dict | list) for value in document.values()):
            return [{columns.image: name, columns.label: value} for name, value in document.items()]
    raise ValueError("it must be a list of objects with image and label, or an object from image to label")


def _from_json_lines(text: str, name: str, _: Columns) -> Cells:
    records, places = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            record = json.loads(line, object_pairs_hook=_unique)
            if not isinstance(record, dict):
                raise ValueError(f"line {number} must be an object, it is {type(record).__name__}")
            records.append(record)
            places.append(f"{name} row {number}")
    header, nested = _columns_of(records)
    return header, records, places, nested


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(
            f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in one object"
        )
    return dict(pairs)


def _columns_of(records: Sequence[dict[str, Any]]) -> tuple[list[str], dict[str, str]]:
    """Columns in the order in which they come up, and those that hold lists or objects."""
    every = list(dict.fromkeys(column for record in records for column in record))
    nested = {
        column: type(record[column]).__name__
        for record in records
        for column in record
        if isinstance(record[column], list | dict)
    }
    return [readable(column) for column in every if column not in nested], nested


TEXTS: dict[str, Callable[[str, str, Columns], Cells]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".json": _from_json,
    ".jsonl": _from_json_lines,
    ".ndjson": _from_json_lines,
}
"""By the end of a file's name: what reads its text, from that, the table's name and the columns; gzip may follow."""
TABLES = (*TEXTS, *(f"{suffix}.gz" for suffix in TEXTS), ".parquet")
