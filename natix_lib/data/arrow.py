"""Encoded images on disk: Arrow streams in the layout of Hugging Face datasets, few and large.

`datasets.Dataset.from_file` opens each shard with its Image and ClassLabel features; natix itself reads them by memory
map. Few big files, because a pipeline's launcher downloads an artifact file by file. Shards are hashed while they are
written. `verified_shards` hashes them before it maps them, because pyarrow trusts what it reads: one changed offset
ends the process. The second reading is the page cache's.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from natix_lib.errors import ContractError
from natix_lib.files import JsonDict, sha256_file

SHARD_BYTES = 256 << 20
BATCH_ROWS = 64


def images_schema() -> Any:
    """The Arrow schema of all images: `id`, `image` and nothing that a label could be read from."""
    from datasets import Features, Image, Value

    return Features({"id": Value("string"), "image": Image()}).arrow_schema


def set_schema(class_names: Sequence[str], tag_names: Sequence[str]) -> Any:
    """The Arrow schema of a role set, with the features that Hugging Face datasets reads from its metadata."""
    from datasets import ClassLabel, Features, Image, Value

    features: dict[str, Any] = {
        "id": Value("string"),
        "image": Image(),
        "label": ClassLabel(names=list(class_names)),
        "group": Value("string"),
    }
    if tag_names:
        features["tags"] = {name: Value("string") for name in tag_names}
    return Features(features).arrow_schema


class ShardWriter:
    """Writes record batches to shards; `close` gives them their final names.

    Rows are gathered to batches of exactly `BATCH_ROWS`, the last one apart, so that the bytes are the same however the
    rows come: one by one, or in the batches of any number of shards of ingest.
    """

    def __init__(self, folder: Path, arrow_schema: Any, shard_bytes: int = SHARD_BYTES) -> None:
        """Write into `folder`, which exists."""
        self.folder, self.schema, self.shard_bytes = folder, arrow_schema, shard_bytes
        self._written: list[_HashedFile] = []
        self._waiting: list[Any] = []
        self._rows = 0
        self._stream: Any = None

    def add(self, batch: Any) -> None:
        """Add the rows of a record batch of the schema."""
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= BATCH_ROWS:
            self._flush(self._rows - self._rows % BATCH_ROWS)

    def close(self) -> JsonDict:
        """Write what is left and name the shards data-00000-of-0000N.arrow.

        Returns:
            The table of files, as `files.file_table` gives it.
        """
        self._flush(self._rows)
        if not self._written:
            self._begin_shard()
        self._end_shard()
        table = {}
        for number, file in enumerate(self._written):
            name = f"data-{number:05d}-of-{len(self._written):05d}.arrow"
            file.path.rename(self.folder / name)
            table[name] = {"sha256": file.digest.hexdigest(), "bytes": file.size}
        return table

    def _flush(self, rows: int) -> None:
        """Write the first `rows` of those that wait."""
        waiting = pa.Table.from_batches(self._waiting, schema=self.schema)
        for start in range(0, rows, BATCH_ROWS):
            if self._stream is None:
                self._begin_shard()
            (batch,) = waiting.slice(start, min(BATCH_ROWS, rows - start)).combine_chunks().to_batches()
            self._stream.write_batch(batch)
            if self._written[-1].size >= self.shard_bytes:
                self._end_shard()
        self._waiting, self._rows = waiting.slice(rows).to_batches(), self._rows - rows

    def _begin_shard(self) -> None:
        file = _HashedFile(self.folder / f".{len(self._written):05d}.part")
        self._written.append(file)
        self._stream = pa.ipc.new_stream(pa.PythonFile(file, "w"), self.schema)

    def _end_shard(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._written[-1].close()
            self._stream = None


class _HashedFile:
    """A file whose bytes are hashed as they are written."""

    def __init__(self, path: Path) -> None:
        self.path, self.digest, self.size, self.closed = path, hashlib.sha256(), 0, False
        self._file = path.open("wb")

    def write(self, content: Any) -> int:
        self.digest.update(content)
        self.size += self._file.write(content)
        return len(content)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        self.closed = True


def verified_shards(folder: Path, files: JsonDict) -> Any:
    """All shards as one memory-mapped table, in order, after the hash of each was found right.

    Args:
        folder: Folder of the shards.
        files: The manifest's table of files.

    Raises:
        ContractError: If a shard is not what its manifest says.
    """
    for path in shard_paths(folder):
        if sha256_file(path) != files.get(path.name, {}).get("sha256"):
            raise ContractError(
                f"{path} was changed after it was written: it does not match the SHA-256 in its manifest"
            )
    return read_shards(folder)


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a folder, in order."""
    return sorted(folder.glob("data-*.arrow"))


def read_shards(folder: Path) -> Any:
    """All shards as one memory-mapped table, in order."""
    tables = [pa.ipc.open_stream(pa.memory_map(str(path))).read_all() for path in shard_paths(folder)]
    return pa.concat_tables(tables)
