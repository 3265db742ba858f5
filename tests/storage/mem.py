"""Buckets in memory, `mem://`: a third kind beside those of natix, made of nothing but `natix_lib.storage.bucket`."""

import hashlib
import itertools
import threading
from pathlib import Path
from typing import NamedTuple

from natix_lib.errors import StorageError
from natix_lib.storage.bucket import Bucket, Object


class Version(NamedTuple):
    """What an object holds, and its number among all versions of all objects."""

    content: bytes
    number: int


BUCKETS: dict[str, dict[str, Version]] = {}
NUMBERS = itertools.count()
LOCK = threading.Lock()


class MemBucket:
    """A dict of names; see `natix_lib.storage.bucket.Bucket`."""

    def __init__(self, bucket_name: str, uri: str) -> None:
        if bucket_name not in BUCKETS:
            raise StorageError(f"{uri} does not exist")
        self._name, self._versions = bucket_name, BUCKETS[bucket_name]

    def find(self, name: str) -> Object | None:
        version = self._versions.get(name)
        if version is None:
            return None
        address, content = f"mem://{self._name}/{name}", version.content
        return Object(name, address, len(content), _checksum(content), (version.number,), version)

    def list(self, prefix: str, deep: bool = True) -> list[Object]:
        names = [name for name in self._versions if name.startswith(prefix)]
        listed = [self.find(name) for name in names if deep or "/" not in name.removeprefix(prefix)]
        return [each for each in listed if each]

    def download(self, source: Object, path: Path) -> Object:
        path.write_bytes(source.handle.content)
        return source

    def matches(self, listed: Object, path: Path) -> bool:
        return listed.checksum == _checksum(path.read_bytes())

    def write(self, name: str, content: bytes | Path, only_new: bool = False) -> Object | None:
        with LOCK:
            if only_new and name in self._versions:
                return None
            content = content if isinstance(content, bytes) else content.read_bytes()
            self._versions[name] = Version(content, next(NUMBERS))
            return self.find(name)

    def remove(self, listed: Object) -> None:
        with LOCK:
            if self._versions.get(listed.name) == listed.handle:
                del self._versions[listed.name]


def open_bucket(bucket_name: str, uri: str) -> Bucket:
    return MemBucket(bucket_name, uri)


def _checksum(content: bytes) -> str:
    return f"sha256 {hashlib.sha256(content).hexdigest()}"
