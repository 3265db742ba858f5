"""Tables that list images and their labels: delimited text, JSON, JSON lines and Parquet, also compressed by gzip.

A table called metadata.* names its images from its own folder, as in Hugging Face's imagefolder; any other names them
from data.data_root. Parquet has a module of its own, which alone imports pyarrow: `natix predict` reads manifests where
that is not installed.
"""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from natix_lib.config import Columns
from natix_lib.data.delimited import decoded, delimited
from natix_lib.data.json_tables import from_json, from_json_lines
from natix_lib.data.listing import Listing, role_of_folders
from natix_lib.data.rows import (
    FILE_NAME,
    Cells,
    Row,
    Source,
    image_path,
    plain_title,
    read_file,
    readable,
    refuse_repeats,
    row_of,
    some,
    with_role,
)
from natix_lib.errors import DataError

BOOKS = (".xlsx", ".xls", ".ods", ".zip", ".bz2", ".xz", ".zst", ".npz", ".npy", ".pkl", ".db", ".sqlite", ".feather")
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
        warning: What its reader is not quite sure of; "" for nothing.
        role: The split role that its file's name gives to all its images, where that is asked for.
    """

    name: str
    folder: Path
    header: list[str]
    records: Sequence[dict[str, Any]]
    places: Sequence[str]
    nested: dict[str, str] = field(default_factory=dict)
    warning: str = ""
    role: str | None = None


def read_table(root: Path, path: Path, columns: Columns) -> Table:
    """Read the table at `path`, a file or a folder of Parquet part files, relative to `root`.

    Raises:
        DataError: If it cannot be read, has no row, lacks a column, or a column has no plain type.
    """
    name = readable(path.as_posix())
    suffix, warning = path.name.lower().removesuffix(".gz"), ""
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
            read = next((TEXTS[ending] for ending in TEXTS if suffix.endswith(ending)), delimited)
            text, warning = decoded(content)
            header, records, places, nested = read(text, name, columns)
    except DataError:
        raise
    except (ValueError, csv.Error, EOFError, zlib.error, RecursionError, OSError) as error:
        raise DataError(f"manifest {name} cannot be read: {error}") from error
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise DataError(f"{name} has the column {repeated[0]!r} twice")
    folder = path.parent if path.name.lower().startswith("metadata.") else Path()
    return Table(name, folder, header, records, places, nested, warning and f"{name}: {warning}")


def as_written(name: str, header: Sequence[str], columns: Columns) -> Columns:
    """The columns as a table writes them: in any case, with spaces or U+FEFF around; image also as `file_name`.

    Raises:
        DataError: If two columns of the table can be one of them and neither is written exactly so.
    """
    written: dict[str, str] = {}
    for key, column in columns.model_dump().items():
        words = [column, FILE_NAME] if key == "image" and column == Columns().image else [column]
        for word in words:
            same = [word] if word in header else [title for title in header if plain_title(title) == plain_title(word)]
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
    have = {plain_title(title) for title in every}
    for key, column in columns.model_dump().items():
        if column and column != getattr(Columns(), key) and plain_title(column) not in have:
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
                near = NEAR.get(key, set()) if column and column not in header else {plain_title(column)}
                if title not in these.values() and plain_title(title) in near:
                    pairs[f"column {title} is not read as {key}: set data.columns.{key}"] = title
    return ["; ".join(pairs)] if pairs else []


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
            role = (role_of_folders(row.id.split("/")[:-1]) if roles else None) or table.role
            if role and table.role not in (None, role):
                raise DataError(f"{place}: {row.id} is {role} by its folder and {table.role} by the name of its table")
            by = "the name of its table" if table.role else "its folder"
            rows.append(with_role(row, role, f"{place}: {row.id}", by))
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
    warnings = [table.warning for table in tables if table.warning]
    warnings += [*listing.left_out(used), *nested_warning(nested), *near_warnings(headers, columns)]
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


TEXTS: dict[str, Callable[[str, str, Columns], Cells]] = {
    ".csv": delimited,
    ".tsv": delimited,
    ".json": from_json,
    ".jsonl": from_json_lines,
    ".ndjson": from_json_lines,
}
"""By the end of a file's name: what reads its text, from that, the table's name and the columns; gzip may follow."""
TABLES = (*TEXTS, *(f"{suffix}.gz" for suffix in TEXTS), ".parquet")
