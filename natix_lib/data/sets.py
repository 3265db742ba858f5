"""Role sets: the images and labels of TRAIN, VAL_SELECT, VAL_CALIB or TEST, each a folder of its own.

Images without a label are a set of their own too, not a part of TRAIN: train, which takes no such set, cannot mistake
them for images of a class. It is empty where all have labels, as the graph is one for all data.

`write_sets` copies the encoded images of each role out of the whole, batch by batch and without decoding, so its
memory is a few batches however many images there are. `open_set` gives what one holds; the images that a step can open
are those of the sets that it was given.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from natix_lib.arrays import Ints
from natix_lib.contracts import SETS, TEST, read_manifest, require_same, write_manifest
from natix_lib.data.arrow import ShardWriter, read_shards, set_schema, verified_shards
from natix_lib.data.images import stored_image
from natix_lib.data.index import Index
from natix_lib.errors import ContractError, StorageError
from natix_lib.files import JsonDict

INGESTED = ("rows", "rejected", "warnings")
TAG_LIMIT = 50  # distinct values; a tag with more is a name, not a slice


class RoleSet:
    """The images of one split role, or those without a label, by rising id.

    Attributes:
        role: The role whose images the set holds, or UNLABELLED.
        ids: Ids of the images.
        labels: Class indices, -1 for none, int64 (n,).
        groups: Group name of each image.
        class_names: Class names in order of the labels.
        positive_classes: Positive classes of the binary score; may be empty.
        resize_shorter_side: Pixels that the shorter side of an image was reduced to.
        dataset_fingerprint: Fingerprint of all ingested images.
        splits_sha256: SHA-256 of splits.json.
        ingested: What ingest counted and warned of, for the report: of TEST; empty for the others.
    """

    def __init__(self, folder: Path, manifest: JsonDict) -> None:
        """Use `open_set`."""
        self.folder = folder
        self.role: str = manifest["role"]
        self.class_names: list[str] = manifest["class_names"]
        self.positive_classes: list[str] = manifest["positive_classes"]
        self.tag_names: list[str] = manifest["tag_names"]
        self.resize_shorter_side: int = manifest["resize_shorter_side"]
        self.dataset_fingerprint: str = manifest["dataset_fingerprint"]
        self.splits_sha256: str = manifest["splits_sha256"]
        self.ingested: JsonDict = manifest.get("ingested") or {}
        self._table: Any = None
        self._process = -1
        ids, labels, groups = (self._images().column(name).to_pylist() for name in ("id", "label", "group"))
        self._rows = sorted(range(len(ids)), key=ids.__getitem__)
        self.ids: list[str] = [ids[row] for row in self._rows]
        self.labels: Ints = np.array([-1 if labels[row] is None else labels[row] for row in self._rows], dtype=np.int64)
        self.groups: list[str] = [groups[row] for row in self._rows]

    def __len__(self) -> int:
        """Images."""
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        """What goes to a data-loading process, which maps the files again."""
        return {**self.__dict__, "_table": None, "_process": -1}

    def image_bytes(self, index: int) -> bytes:
        """The stored JPEG of image `index`."""
        content: bytes = self._images().column("image")[self._rows[index]]["bytes"].as_py()
        return content

    def image(self, index: int) -> Image.Image:
        """Image `index` as RGB."""
        return stored_image(self.image_bytes(index))

    def tags(self) -> dict[str, list[str | None]]:
        """Tag name to the value of each image, for tags with 2 to `TAG_LIMIT` distinct values in this role."""
        return {name: each for name, each in self.all_tags().items() if 2 <= len(set(each)) <= TAG_LIMIT}

    def all_tags(self) -> dict[str, list[str | None]]:
        """Tag name to the value of each image."""
        if not self.tag_names:
            return {}
        column = self._images().column("tags").to_pylist()
        return {name: [column[row][name] for row in self._rows] for name in self.tag_names}

    def _images(self) -> Any:
        """The memory-mapped Arrow table of this process."""
        if self._process != os.getpid():
            self._table, self._process = read_shards(self.folder), os.getpid()
        return self._table


class Together:
    """The images of several sets, one set after the other, without labels."""

    def __init__(self, *sets: RoleSet, without: Collection[str] = ()) -> None:
        """The sets in their order, without the images of some groups."""
        self._places = [(each, i) for each in sets for i, group in enumerate(each.groups) if group not in without]
        self.ids = [each.ids[index] for each, index in self._places]

    def __len__(self) -> int:
        """Images."""
        return len(self._places)

    def image(self, index: int) -> Image.Image:
        """Image `index` as RGB."""
        images, place = self._places[index]
        return images.image(place)


def open_set(folder: str | Path, role: str, hash_files: bool = True) -> RoleSet:
    """Open the set of a role.

    Args:
        folder: The artifact's folder.
        role: The role that it must hold, or UNLABELLED.
        hash_files: Whether to check the hash of every file; the processes that a step starts leave that to the step.

    Raises:
        ContractError: If it is unfinished, altered, of another schema or of another role.
    """
    manifest = read_manifest(folder, SETS[role], hash_files)
    opened = RoleSet(Path(folder), manifest)
    if len(opened) != manifest["rows"]:
        raise ContractError(f"{SETS[role]} {folder} holds {len(opened)} images, its manifest says {manifest['rows']}")
    return opened


def require_one_division(sets: Mapping[str, RoleSet]) -> None:
    """Refuse sets that were not made together.

    Args:
        sets: Artifact name to its set.

    Raises:
        ContractError: Naming two of them and what differs.
    """
    first, *others = sets
    for other in others:
        for key in ("splits_sha256", "dataset_fingerprint"):
            require_same(key, getattr(sets[first], key), first, getattr(sets[other], key), other)


def indexed_images(folders: Sequence[tuple[Path, JsonDict]], index: Index) -> Any:
    """The images of an index as a memory-mapped table, in its order.

    Args:
        folders: Folders that together hold all images, in the order of the index, each with its manifest's table of
            files.
        index: The index of them all.

    Raises:
        ContractError: If the images are altered, or not those of the index.
    """
    images = pa.concat_tables([verified_shards(*each) for each in folders])
    if len(images) != len(index):
        raise ContractError(f"{folders[0][0]} holds {len(images)} images, its index {len(index)}")
    if not images.column("id").equals(index.table(["id"]).column("id")):
        raise ContractError(f"the ids of the images in {folders[0][0]} are not those of the index")
    return images


def write_sets(
    images: Any, index: Index, roles: Ints, groups: list[str], splits_sha256: str, folders: Mapping[str, Path]
) -> None:
    """Copy the images of each role into a set of its own; images of no role go nowhere.

    Args:
        images: Table of all images, of `indexed_images`.
        index: The index that they were written with.
        roles: Place of each image's set in `contracts.SETS`, which is its role's number, -1 for none, (n,).
        groups: Group name of each image, which steps after this one know it by.
        splits_sha256: SHA-256 of splits.json.
        folders: Role, or UNLABELLED, to the folder to write; the images of a role without one go nowhere.

    Raises:
        StorageError: If a folder cannot be written.
    """
    names = ["label", "group", *(["tags"] if index.tag_names else [])]
    shown = index.table(["id", "label", *names[2:]]).append_column("group", pa.array(groups, pa.string()))
    schema = set_schema(index.class_names, index.tag_names)
    try:
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        writers = {number: ShardWriter(folders[role], schema) for number, role in enumerate(SETS) if role in folders}
        start = 0
        for batch in images.to_batches():
            part = shown.slice(start, batch.num_rows).combine_chunks()
            columns = [batch.column("id"), batch.column("image"), *(part.column(name).chunk(0) for name in names)]
            for number, writer in writers.items():
                chosen = np.flatnonzero(roles[start : start + batch.num_rows] == number)
                writer.add(pa.RecordBatch.from_arrays([column.take(chosen) for column in columns], schema=schema))
            start += batch.num_rows
        tables = {number: writer.close() for number, writer in writers.items()}
    except OSError as error:
        raise StorageError(f"cannot write {error.filename or 'a set'}: {error.strerror or error}") from error
    for number, table in tables.items():
        role = list(SETS)[number]
        write_manifest(
            folders[role],
            SETS[role],
            {
                "role": role,
                "class_names": index.class_names,
                "positive_classes": index.document["positive_classes"],
                "tag_names": index.tag_names,
                "rows": int((roles == number).sum()),
                "resize_shorter_side": index.document["resize_shorter_side"],
                "dataset_fingerprint": index.fingerprint,
                "splits_sha256": splits_sha256,
                # Of TEST alone: a warning about the source must not make the other steps run again.
                **({"ingested": {key: index.document[key] for key in INGESTED}} if role == TEST else {}),
            },
            table,
        )
