"""The index: what ingest knows of every image, one Parquet row an image, without its pixels.

Split decides by it alone, and a person can open it with any Parquet reader. The label of an image without one is null.
What holds for all images, class names among them, is JSON in the file's metadata under `natix`, so that the index is
one file and cannot be parted from it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from natix_lib.contracts import ARTIFACTS, SCHEMA_VERSION, check_document, require_same
from natix_lib.errors import ContractError
from natix_lib.files import JsonDict, canonical_json, parse_json, sha256_bytes, write_bytes

METADATA = b"natix"
COLUMNS = {
    "id": pa.string(),
    "label": pa.int64(),
    "group": pa.string(),
    "source_id": pa.string(),
    "captured_at": pa.string(),
    "given_split": pa.string(),
    "lat": pa.float64(),
    "lon": pa.float64(),
    "is_synthetic": pa.bool_(),
    "sha256": pa.string(),
    "hashes": pa.binary(),
    "width": pa.int64(),
    "height": pa.int64(),
    "bytes": pa.int64(),
}


class Index:
    """An index that was read: its columns, and what holds for all images.

    Attributes:
        document: What holds for all images; see `documents.Index`.
        sha256: SHA-256 of the index's file.
    """

    def __init__(self, table: Any, document: JsonDict, sha256: str) -> None:
        """Use `read_index`."""
        self._table = table
        self.document = document
        self.sha256 = sha256
        self.class_names: list[str] = document["class_names"]
        self.tag_names: list[str] = document["tag_names"]
        self.fingerprint: str = document.get("fingerprint", "")  # a part has neither
        self.content_fingerprint: str = document.get("content_fingerprint", "")

    def __len__(self) -> int:
        """Images."""
        return int(self._table.num_rows)

    def column(self, name: str) -> list[Any]:
        """A column as Python values; `tags` gives a dict for each image."""
        values: list[Any] = self._table.column(name).to_pylist()
        return values

    def few_valued_tags(self, most: int) -> dict[str, list[str | None]]:
        """The tags of 2 to `most` values, by name, each with the value of each image."""
        if not self.tag_names:
            return {}
        structs = self._table.column("tags").combine_chunks()
        fields = {name: structs.field(name) for name in self.tag_names}
        return {
            name: values.to_pylist() for name, values in fields.items() if 2 <= len(values.drop_null().unique()) <= most
        }

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """Some columns as an Arrow table; None gives all."""
        return self._table if columns is None else self._table.select(list(columns))


def index_table(rows: Sequence[Mapping[str, Any]], tag_names: Sequence[str]) -> Any:
    """The Arrow table of an index.

    Args:
        rows: The columns of each image, with `tags`, a dict.
        tag_names: Names of the tags that a row has.
    """
    columns = dict(COLUMNS)
    if tag_names:
        columns["tags"] = pa.struct([(name, pa.string()) for name in tag_names])
    return pa.Table.from_pylist(list(rows), schema=pa.schema(list(columns.items())))


def write_index(path: str | Path, table: Any, tag_names: Sequence[str], body: JsonDict, artifact: str = "index") -> str:
    """Write an index, whole or not at all.

    Args:
        path: Path of the index's file.
        table: Its rows, as `index_table` gives them.
        tag_names: Names of the tags that a row has.
        body: What holds for all images.
        artifact: What is written: "index", or "part" for the rows of one shard.

    Returns:
        The file's SHA-256.
    """
    document = {**body, "artifact": artifact, "schema_version": SCHEMA_VERSION, "tag_names": list(tag_names)}
    check_document(document, artifact, path)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({METADATA: canonical_json(document)}), sink)
    content = sink.getvalue().to_pybytes()
    write_bytes(path, content)
    return sha256_bytes(content)


def read_index(path: str | Path, sha256: str | None = None, artifact: str = "index") -> Index:
    """Read an index.

    Args:
        path: The file.
        sha256: The hash that it must have, of the images.json beside which it was written; None takes any.
        artifact: What it must be: "index", or "part" for the rows of one shard.

    Raises:
        ContractError: If it is none, or of another hash, schema or shape.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ContractError(f"index {path} cannot be read: {error.strerror or error}") from error
    if sha256 is not None:  # before it is parsed: a changed Parquet file need not be an error to its reader
        require_same("index_sha256", sha256, ARTIFACTS["images"].manifest, sha256_bytes(content), "the index")
    try:
        # not pq.read_table: its threads outlive it and, at the end of the process, abort it over what they let go
        table = pq.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowException, OSError) as error:
        raise ContractError(f"index {path} cannot be read: {error}") from error
    metadata = (table.schema.metadata or {}).get(METADATA)
    if metadata is None:
        raise ContractError(f"{path} is no index: its metadata lacks {METADATA.decode()!r}")
    document = parse_json(metadata, f"the metadata of {path}")
    if not isinstance(document, dict):
        raise ContractError(f"the metadata of {path} must be a JSON object, got {type(document).__name__}")
    check_document(document, artifact, path)
    if table.num_rows != document["rows"]:
        raise ContractError(f"index {path} has {table.num_rows} rows, its metadata says {document['rows']}")
    expected = [*COLUMNS, *(["tags"] if document["tag_names"] else [])]
    if table.column_names != expected:
        raise ContractError(f"index {path} must have the columns {', '.join(expected)}, got {table.column_names}")
    return Index(table, document, sha256_bytes(content))
