"""Opening a dataset, and the one place where the images of a split role are opened.

`open_role` checks that the step may read the role, that the splits were made from this dataset, and gives a view that
can be sent to data-loading processes: it carries row numbers and maps the file again where it arrives.
"""

import io
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natix_lib.contracts import read_document, read_manifest, require_may_read, require_same
from natix_lib.data.arrow import read_shards
from natix_lib.errors import ContractError
from natix_lib.files import JsonDict, sha256_file

Ints = NDArray[np.int64]
TAG_LIMIT = 50  # distinct values; a tag with more is a name, not a slice


class Dataset:
    """A verified dataset: its manifest and its columns; images are read when asked for."""

    def __init__(self, folder: Path, manifest: JsonDict) -> None:
        """Use `open_dataset`."""
        self.folder = folder
        self.manifest = manifest
        self.class_names: list[str] = manifest["class_names"]
        self.positive_classes: list[str] = manifest["positive_classes"]
        self.fingerprint: str = manifest["fingerprint"]
        self.tag_names: list[str] = manifest["tag_names"]
        self._table: Any = None
        self._process = -1

    def __len__(self) -> int:
        """Images."""
        return int(self.manifest["rows"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None, "_process": -1}

    @property
    def table(self) -> Any:
        """The memory-mapped Arrow table of this process."""
        if self._process != os.getpid():
            self._table, self._process = read_shards(self.folder), os.getpid()
        return self._table

    def column(self, name: str) -> list[Any]:
        """A column but `image`, as Python values."""
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    def image_bytes(self, row: int) -> bytes:
        """The stored JPEG of a row."""
        content: bytes = self.table.column("image")[row]["bytes"].as_py()
        return content


@lru_cache(maxsize=8)
def _opened(folder: Path, stamp: int) -> Dataset:
    return Dataset(folder, read_manifest(folder, "dataset"))


def open_dataset(folder: str | Path) -> Dataset:
    """Open a dataset after checking every file's hash, once in a process.

    Raises:
        ContractError: If it is unfinished, altered or of another schema.
    """
    root = Path(folder)
    manifest = root / "dataset.json"
    return _opened(root, manifest.stat().st_mtime_ns if manifest.is_file() else 0)


class RoleView:
    """The images of one split role, by rising id.

    Attributes:
        role: The role.
        ids: Of the images.
        labels: Class indices, int64 (n,).
        groups: Group name of each image.
        class_names: In order of the labels.
        positive_classes: Of the binary score; may be empty.
        dataset_fingerprint: Of the whole dataset.
        splits_sha256: Of splits.json.
    """

    def __init__(self, dataset: Dataset, role: str, rows: Ints, groups: list[str], splits_sha256: str) -> None:
        """Use `open_role`."""
        ids, labels = dataset.column("id"), dataset.column("label")
        self.dataset, self.role, self._rows = dataset, role, rows
        self.ids: list[str] = [ids[row] for row in rows]
        self.labels: Ints = np.array([labels[row] for row in rows], dtype=np.int64)
        self.groups = groups
        self.class_names = dataset.class_names
        self.positive_classes = dataset.positive_classes
        self.dataset_fingerprint = dataset.fingerprint
        self.splits_sha256 = splits_sha256

    def __len__(self) -> int:
        """Images."""
        return len(self.ids)

    def image_bytes(self, index: int) -> bytes:
        """The stored JPEG of image `index`."""
        return self.dataset.image_bytes(int(self._rows[index]))

    def image(self, index: int) -> Image.Image:
        """Image `index` as RGB."""
        return Image.open(io.BytesIO(self.image_bytes(index))).convert("RGB")

    def tags(self) -> dict[str, list[str | None]]:
        """Tag name to the value of each image, for tags with 2 to `TAG_LIMIT` distinct values in this role."""
        if not self.dataset.tag_names:
            return {}
        column = self.dataset.column("tags")
        found = {name: [column[row][name] for row in self._rows] for name in self.dataset.tag_names}
        return {name: values for name, values in found.items() if 2 <= len(set(values)) <= TAG_LIMIT}


def open_role(step: str, role: str, dataset: str | Path, splits: str | Path) -> RoleView:
    """Open the images of a split role for a step.

    Raises:
        ContractError: If the step may not read the role, or the splits are of another dataset.
    """
    require_may_read(step, role)
    opened = open_dataset(dataset)
    document = read_document(splits, "splits")
    require_same("dataset_fingerprint", opened.fingerprint, "dataset", document["dataset_fingerprint"], "splits.json")
    row_of = {name: row for row, name in enumerate(opened.column("id"))}
    ids = sorted(document["roles"].get(role, []))
    unknown = [name for name in ids if name not in row_of]
    if unknown or not ids:
        raise ContractError(f"splits.json: {role} must list images of the dataset, got {unknown[:1] or 'none'}")
    alone = [name for name in ids if name not in document["groups"]]
    if alone:
        raise ContractError(f"splits.json: groups must name every image of {role}, {alone[0]!r} is missing")
    rows = np.array([row_of[name] for name in ids], dtype=np.int64)
    return RoleView(opened, role, rows, [document["groups"][name] for name in ids], sha256_file(splits))
