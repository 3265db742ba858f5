"""Tables that hold their images as bytes, or in a record with bytes: Hugging Face's Parquet, and Arrow as it saves it.

Part files may lie in a folder called x.parquet, as Spark writes it. All must mean the same: one type of label, and one
list of class names where one is declared, because an index into another list is another class.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from natix_lib.config import Columns
from natix_lib.data.listing import NEAR_ROLE, Listing, refuse_copies, role_of_file
from natix_lib.data.parquet_tables import is_plain, read_schema
from natix_lib.data.rows import Row, Source, readable, row_of, some, with_role
from natix_lib.data.tables import (
    as_written,
    free_columns,
    near_warnings,
    nested_warning,
    require_columns,
    require_named_columns,
)
from natix_lib.errors import DataError

ROWS, IMAGES = 65_536, 64  # rows at once of facts, and of images
NO_LABEL = -1  # of a ClassLabel: Hugging Face's word for an image that nobody has labelled


@dataclass(frozen=True)
class Kind:
    """A kind of file that holds images.

    Attributes:
        name: What it is called.
        schema: From a path to the Arrow schema.
        batches: From a path, columns and a number of rows to record batches of these columns, of about so many rows.
    """

    name: str
    schema: Callable[[Path], Any]
    batches: Callable[[Path, list[str], int], Iterator[Any]]


def parquet_batches(path: Path, columns: list[str], rows: int) -> Iterator[Any]:
    """The rows of a Parquet file in batches, of these columns alone."""
    with path.open("rb") as file:
        yield from pq.ParquetFile(file).iter_batches(batch_size=rows, columns=columns)


PARQUET = Kind("Parquet", read_schema, parquet_batches)


def from_parquet(listing: Listing, files: list[Path], columns: Columns, kind: Kind = PARQUET) -> Source:
    """Rows of files that hold images, and their images.

    Args:
        listing: What lies in the data set's folder.
        files: The files, in order.
        columns: Which column is what.
        kind: What kind of files they are.

    Raises:
        DataError: If a file cannot be read, lacks a column, has a type that is not read, or contradicts another.
    """
    rows: list[Row] = []
    names: dict[str, list[str]] = {}
    label_types: dict[str, str] = {}
    nested: dict[str, str] = {}
    empty: list[str] = []
    near: list[str] = []
    counts: list[int] = []
    refuse_copies(files)
    schemas = {readable(path.as_posix()): _schema(kind, listing.root, path) for path in files}
    headers = {name: schema.names for name, schema in schemas.items()}
    require_named_columns(headers, columns)
    written: dict[str, Columns] = {}
    for path in files:
        name = readable(path.as_posix())
        schema = schemas[name]
        written[name] = these = as_written(name, schema.names, columns)
        flat = [column for column in schema.names if is_plain(schema.field(column).type)]
        others = {column: str(schema.field(column).type) for column in schema.names if column not in flat}
        _require_images(name, schema, these)
        require_columns(name, [*flat, these.image], others, these)
        nested |= {column: described for column, described in others.items() if column != these.image}
        names[name] = _declared_names(name, schema, these.label)
        label_types[name] = _label_type(schema.field(these.label).type)
        given = role_of_file(path)
        free = free_columns(flat, these)
        with _one_line(kind, name):
            batches = kind.batches(listing.root / path, flat, ROWS)
            records = [record for batch in batches for record in batch.to_pylist()]
        counts.append(len(records))
        if not records:
            empty.append(name)
        for number, record in enumerate(records):
            if names[name] and record[these.label] == NO_LABEL:
                record[these.label] = None
            row = row_of(f"{name}#{number}", record, free, these, f"{name}#{number}")
            rows.append(with_role(row, given, row.id, "its file's name"))
        if records and rows[-1].given_split is None and NEAR_ROLE.fullmatch(path.stem):
            near.append(name)
    _require_one(
        "declares the classes", {name: ", ".join(value) or "none" for name, value in names.items()}, columns.label
    )
    _require_one("is of type", {name: value for name, value in label_types.items() if value != "empty"}, columns.label)

    def images_in(path: Path) -> Iterator[bytes | DataError]:
        name = readable(path.as_posix())
        with _one_line(kind, name):
            for batch in kind.batches(listing.root / path, [written[name].image], IMAGES):
                yield from _contents(batch.column(0))

    def images() -> Iterator[bytes | DataError]:
        return itertools.chain.from_iterable(map(images_in, files))

    warnings = [*listing.left_out(files), *nested_warning(nested), *near_warnings(headers, columns)]
    if near:
        warnings.append(
            f"{len(near)} {kind.name} files begin with the word of a split role and give none to their rows: "
            f"{some(near)}; a name such as test.parquet or test-00000-of-00004.parquet would, or a split column"
        )
    if empty:
        warnings.append(f"{len(empty)} {kind.name} files hold no row: {some(empty)}")
    layout = f"in {some(schemas)}, {kind.name} that holds them"
    blocks = [(count, partial(images_in, path)) for count, path in zip(counts, files, strict=True)]
    return Source(rows, images, layout, class_names=next(iter(names.values()), []), warnings=warnings, blocks=blocks)


def holds_images(root: Path, path: Path, columns: Columns) -> bool:
    """Whether the image column of a Parquet file holds something else than names of files."""
    schema = _schema(PARQUET, root, path)
    image = as_written(readable(path.as_posix()), schema.names, columns).image
    return image in schema.names and not is_plain(schema.field(image).type)


def _schema(kind: Kind, root: Path, path: Path) -> Any:
    name = readable(path.as_posix())
    with _one_line(kind, name):
        schema = kind.schema(root / path)
    repeated = [column for column in schema.names if schema.names.count(column) > 1]
    if repeated:
        raise DataError(f"{name} has the column {repeated[0]!r} twice")
    return schema


@contextmanager
def _one_line(kind: Kind, name: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: text that is not UTF-8
        raise DataError(f"{kind.name} file {name} cannot be read: {' '.join(str(error).split())}") from error


def _contents(values: Any) -> Iterator[bytes | DataError]:
    if pa.types.is_struct(values.type):
        values = pc.struct_field(values, "bytes")
    for content in values.to_pylist():
        yield content if content is not None else DataError("no image bytes")


def _require_images(name: str, schema: Any, columns: Columns) -> None:
    if columns.image not in schema.names:  # a file_name of an imagefolder is no image either
        raise DataError(
            f"{name} has no column {columns.image!r} (data.columns.image); it has {', '.join(schema.names[:12])}"
        )
    image = schema.field(columns.image).type
    content = image
    if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0:
        content = image.field("bytes").type
    if not (pa.types.is_binary(content) or pa.types.is_large_binary(content) or pa.types.is_binary_view(content)):
        raise DataError(
            f"{name}: column {columns.image} must hold image bytes, it is {image}; set data.format: manifest and "
            f"data.manifest: {name} for a list of paths"
        )


def _declared_names(name: str, schema: Any, label: str) -> list[str]:
    """Class names of a ClassLabel column, from the metadata that Hugging Face datasets writes."""
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        feature = json.loads(text)["info"]["features"][label]
        return [str(value) for value in feature.get("names") or []]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: its Hugging Face metadata cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError):
        return []


def _label_type(column_type: Any) -> str:
    if pa.types.is_dictionary(column_type):
        return _label_type(column_type.value_type)
    if pa.types.is_null(column_type):
        return "empty"
    if pa.types.is_integer(column_type) or pa.types.is_floating(column_type) or pa.types.is_decimal(column_type):
        return "number"
    return "truth value" if pa.types.is_boolean(column_type) else "text"


def _require_one(what: str, values: dict[str, str], column: str) -> None:
    """Refuse part files that differ in what a label means."""
    first = next(iter(values), None)
    for name, value in values.items():
        if first is not None and value != values[first]:
            raise DataError(f"column {column} {what} {values[first]} in {first} and {value} in {name}")
