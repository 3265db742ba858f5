"""The dataset on disk: Arrow streams in the layout of Hugging Face datasets, few and large.

`datasets.Dataset.from_file` opens each shard with its Image and ClassLabel features; natix itself reads them by memory
map. Few big files, because a pipeline's launcher downloads an artifact file by file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from natix_lib.data.images import Prepared
from natix_lib.data.rows import Row

SHARD_BYTES = 256 << 20
BATCH_ROWS = 64


def schema(class_names: Sequence[str], tag_names: Sequence[str]) -> Any:
    """The Arrow schema, with the features that Hugging Face datasets reads from its metadata."""
    from datasets import ClassLabel, Features, Image, Value

    features: dict[str, Any] = {
        "id": Value("string"),
        "image": Image(),
        "label": ClassLabel(names=list(class_names)),
        "group": Value("string"),
        "source_id": Value("string"),
        "captured_at": Value("string"),
        "given_split": Value("string"),
        "lat": Value("float64"),
        "lon": Value("float64"),
        "is_synthetic": Value("bool"),
        "sha256": Value("string"),
        "phash": Value("uint64"),
    }
    if tag_names:
        features["tags"] = {name: Value("string") for name in tag_names}
    return Features(features).arrow_schema


def record(row: Row, label: int, image: Prepared, tag_names: Sequence[str]) -> dict[str, Any]:
    """A row of the dataset."""
    values: dict[str, Any] = {
        "id": row.id,
        "image": {"bytes": image.content, "path": None},
        "label": label,
        "group": row.group,
        "source_id": row.source_id,
        "captured_at": row.captured_at,
        "given_split": row.given_split,
        "lat": row.lat,
        "lon": row.lon,
        "is_synthetic": row.is_synthetic,
        "sha256": image.sha256,
        "phash": image.phash,
    }
    if tag_names:
        values["tags"] = {name: row.tags.get(name) for name in tag_names}
    return values


class ShardWriter:
    """Writes rows to shards; call `close` to give them their final names."""

    def __init__(self, folder: Path, arrow_schema: Any, shard_bytes: int = SHARD_BYTES) -> None:
        """Write into `folder`, which exists."""
        self.folder, self.schema, self.shard_bytes = folder, arrow_schema, shard_bytes
        self._parts: list[Path] = []
        self._rows: list[dict[str, Any]] = []
        self._stream: Any = None
        self._bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self._rows.append(row)
        self._bytes += len(row["image"]["bytes"])
        if len(self._rows) == BATCH_ROWS:
            self._flush()
        if self._bytes >= self.shard_bytes:
            self._end_shard()

    def close(self) -> None:
        """Write what is left and name the shards data-00000-of-0000N.arrow."""
        self._end_shard()
        for number, part in enumerate(self._parts):
            part.rename(self.folder / f"data-{number:05d}-of-{len(self._parts):05d}.arrow")

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._stream is None:
            part = self.folder / f".{len(self._parts):05d}.part"
            self._parts.append(part)
            self._stream = pa.ipc.new_stream(pa.OSFile(str(part), "wb"), self.schema)
        self._stream.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self.schema))
        self._rows = []

    def _end_shard(self) -> None:
        self._flush()
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._bytes = 0


def read_shards(folder: Path) -> Any:
    """All shards as one memory-mapped table, in order."""
    tables = [pa.ipc.open_stream(pa.memory_map(str(path))).read_all() for path in sorted(folder.glob("data-*.arrow"))]
    return pa.concat_tables(tables)
