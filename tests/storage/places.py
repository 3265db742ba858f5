"""Places that the verbs work on, each seen past the verbs: a disk, Cloud Storage, S3, and a toy of a further kind."""

import sys
from pathlib import Path
from typing import Protocol

import pytest

from natix_lib import grammar
from tests.cloud_storage import BUCKET, Cloud
from tests.simple_storage import Simple
from tests.storage import mem


class Place(Protocol):
    """Somewhere to keep files."""

    def uri(self, name: str) -> str:
        """The address of a file or folder."""

    def put(self, files: dict[str, bytes]) -> None:
        """Write files, by name."""

    def contents(self) -> dict[str, bytes]:
        """Every file, by name."""

    def writes(self) -> dict[str, object]:
        """Of every file, by name, what differs after it was written again."""


class Disk:
    def __init__(self, root: Path) -> None:
        self.root = root

    def uri(self, name: str) -> str:
        return str(self.root / name)

    def put(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(content)

    def contents(self) -> dict[str, bytes]:
        return contents(self.root)

    def writes(self) -> dict[str, object]:
        return {name: (self.root / name).stat().st_ino for name in self.contents()}


class CloudStorage:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def uri(self, name: str) -> str:
        return f"gs://{BUCKET}/{name}"

    def put(self, files: dict[str, bytes]) -> None:
        self.cloud.put(files)

    def contents(self) -> dict[str, bytes]:
        return {blob.name: blob.download_as_bytes() for blob in self.cloud.bucket.list_blobs()}

    def writes(self) -> dict[str, object]:
        return {blob.name: blob.generation for blob in self.cloud.bucket.list_blobs()}


class SimpleStorage:
    def __init__(self, simple: Simple) -> None:
        self.simple = simple

    def uri(self, name: str) -> str:
        return f"s3://{BUCKET}/{name}"

    def put(self, files: dict[str, bytes]) -> None:
        self.simple.put(files)

    def contents(self) -> dict[str, bytes]:
        return self.simple.contents()

    def writes(self) -> dict[str, object]:
        return {name: self.simple.writes[name] for name in self.simple.names()}


class Memory:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setitem(grammar.SCHEMES, "mem", grammar.BUCKET)
        patch.setitem(sys.modules, "natix_lib.storage.mem", mem)
        patch.setitem(mem.BUCKETS, BUCKET, {})

    def uri(self, name: str) -> str:
        return f"mem://{BUCKET}/{name}"

    def put(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            mem.open_bucket(BUCKET, "").write(name, content)

    def contents(self) -> dict[str, bytes]:
        return {name: version.content for name, version in mem.BUCKETS[BUCKET].items()}

    def writes(self) -> dict[str, object]:
        return {name: version.number for name, version in mem.BUCKETS[BUCKET].items()}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bundle(folder: Path, content: str) -> Path:
    """A folder of three files with a manifest, bundle.json."""
    (folder / "golden").mkdir(parents=True)
    for name in ("model.onnx", "golden/wide.png", "bundle.json"):
        (folder / name).write_text(f"{content} {name}")
    return folder
