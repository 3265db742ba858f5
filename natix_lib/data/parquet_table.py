"""Parquet as a table, with pyarrow, which no other table needs: a base install reads them without it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from natix_lib.data.rows import Cells, readable
from natix_lib.errors import DataError


def read_cells(root: Path, path: Path) -> Cells:
    """Cells of a Parquet file, or of a folder of part files, at `path` below `root`.

    Raises:
        DataError: If a column stands twice.
        OSError: If a file cannot be opened.
        ValueError: If Arrow cannot read it.
    """
    try:
        return _cells(root, path)
    except pa.ArrowException as error:  # not all of them are ValueErrors
        raise ValueError(str(error)) from error


def _cells(root: Path, path: Path) -> Cells:
    parts = sorted((root / path).glob("*.parquet")) if (root / path).is_dir() else [root / path]
    header: dict[str, None] = {}
    nested: dict[str, str] = {}
    records, places = [], []
    for part in (part for part in parts if not part.name.startswith((".", "_"))):
        name = readable((path / part.name if len(parts) > 1 else path).as_posix())
        schema = read_schema(part)
        if len(set(schema.names)) < len(schema.names):
            raise DataError(
                f"{name} has the column {next(n for n in schema.names if schema.names.count(n) > 1)!r} twice"
            )
        flat = [column for column in schema.names if is_plain(schema.field(column).type)]
        nested |= {column: str(schema.field(column).type) for column in schema.names if column not in flat}
        header |= dict.fromkeys(flat)
        these = read_records(part, flat)
        records += these
        places += [f"{name} row {number}" for number in range(len(these))]
    return [column for column in header if column not in nested], records, places, nested


def read_schema(path: Path) -> Any:
    """The Arrow schema of a Parquet file, opened here because Arrow takes names in UTF-8 only."""
    with path.open("rb") as file:
        return pq.read_schema(file)


def read_records(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    """The rows of a Parquet file, of these columns alone."""
    with path.open("rb") as file:
        records: list[dict[str, Any]] = pq.ParquetFile(file).read(columns=columns).to_pylist()
    return records


def is_plain(column_type: Any) -> bool:
    """Whether a Parquet column holds text, numbers, truth values or times."""
    if pa.types.is_dictionary(column_type):
        return is_plain(column_type.value_type)
    types = pa.types
    return any(
        test(column_type)
        for test in (
            *(types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_floating),
            *(types.is_boolean, types.is_decimal, types.is_temporal, types.is_null),
        )
    )
