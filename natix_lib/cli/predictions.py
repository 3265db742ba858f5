r"""The rows that `natix predict` writes, and the files that they can be written to.

A row is a JSON object: what the bundle says of an image, or the reason why it says nothing. A table has the same in
columns, all of them always: image, label, p:CLASS for each class, score, accepted, set, error; what a row lacks is
empty. A file is written as the rows come, beside its name, and gets its name when it is whole.

A table names things in text, so a byte of a file name that is no UTF-8 becomes `\udcff`. In CSV a carriage return
becomes `\r`, which the csv module does not quote, and a name that a spreadsheet would take for a formula gets `./`
before it, which names the same file. Apostrophes before such names were rejected: they name another.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from natix_lib.bundle.runtime import Prediction
from natix_lib.cli.extras import require
from natix_lib.data.rows import readable
from natix_lib.errors import ConfigError, DataError
from natix_lib.files import replacing, require_new, write_csv

Row = dict[str, Any]
FORMULA = ("=", "+", "-", "@", "\t", "\r")
ROW_GROUP = 10_000  # rows of a Parquet file that are held until they are written


def row_of(name: str, result: Prediction | DataError) -> Row:
    """The row of an image."""
    return {"image": name, **({"error": str(result)} if isinstance(result, DataError) else result.document())}


def require_output(path: Path) -> None:
    """Refuse a place for the rows before anything is done.

    Raises:
        ConfigError: If its ending names no format, something is there, it lies below a file, or a package is missing.
    """
    if path.suffix.lower() not in WRITERS:
        raise ConfigError(f"--output must end in {', '.join(WRITERS)}, got {path}")
    if path.exists():
        raise ConfigError(f"output {path} exists: name another file, or remove it")
    require_new(path)
    if path.suffix.lower() == ".parquet":
        require("pyarrow")


def write_rows(path: Path, rows: Iterable[Row], class_names: Sequence[str]) -> None:
    """Write rows to a file, whole or not at all, in the format of its ending.

    Raises:
        StorageError: If it cannot be written.
    """
    WRITERS[path.suffix.lower()](path, rows, class_names)


def json_line(row: Row, ascii_only: bool = False) -> str:
    r"""A row as JSON; what is no character of a name becomes `\udcff`, which JSON reads as what it was."""
    return readable(json.dumps(row, ensure_ascii=ascii_only))


def as_text(name: str) -> str:
    """A file's name as one that no spreadsheet takes for a formula, and no reader strips: `./` names the same file."""
    return f"./{name}" if name.startswith(FORMULA) or name[:1].isspace() else name


def _cells(row: Row, class_names: Sequence[str]) -> Row:
    """A row by the columns of a table; None where it has nothing."""
    probabilities = row.get("probabilities", {})
    return {
        "image": readable(row["image"]),
        "label": row.get("label"),
        **{f"p:{name}": probabilities.get(name) for name in class_names},
        **{name: row.get(name) for name in ("score", "accepted", "set", "error")},
    }


def _write_csv(path: Path, rows: Iterable[Row], class_names: Sequence[str]) -> None:
    def lines() -> Iterator[Iterable[object]]:
        yield _cells({"image": ""}, class_names)
        for row in rows:
            cells = _cells(row, class_names)
            cells["image"] = as_text(cells["image"]).replace("\r", "\\r")
            for column in ("accepted", "set"):
                if cells[column] is not None:
                    cells[column] = json.dumps(cells[column], ensure_ascii=False)
            yield cells.values()

    write_csv(path, lines())


def _write_json_lines(path: Path, rows: Iterable[Row], class_names: Sequence[str]) -> None:
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        file.writelines(f"{json_line(row)}\n" for row in rows)


def _write_parquet(path: Path, rows: Iterable[Row], class_names: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "image": pa.string(),
        "label": pa.string(),
        **{f"p:{name}": pa.float64() for name in class_names},
        **{"score": pa.float64(), "accepted": pa.bool_(), "set": pa.list_(pa.string()), "error": pa.string()},
    }
    schema = pa.schema(list(types.items()))
    cells = (_cells(row, class_names) for row in rows)
    with replacing(path) as part, part.open("wb") as file, pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(cells, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))


WRITERS: dict[str, Callable[[Path, Iterable[Row], Sequence[str]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}
"""By the ending of a file's name, what writes rows of these classes to it."""
