"""The verbs on what lies in a bucket, written once over the primitives of `bucket.Bucket`.

Every object is compared with its listed checksum after the transfer: a client's own check trusts a header that a proxy
may drop.

Publishing must never leave a mixture of two publishers' files. The publisher first claims the place: it creates
`<uri>/.publishing` on the condition that it does not exist, which one of two can do; it then uploads the files, and
the manifest last, each on the condition that none is there. A publisher that was killed leaves a claim and no
manifest, so nothing there can be taken for a bundle, and the next publisher is told. Folders named by content hash
were rejected: a consumer wants the address that the config names.
"""

import shutil
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from natix_lib import grammar
from natix_lib.errors import StorageError
from natix_lib.files import canonical_json, sha256_bytes
from natix_lib.storage.bucket import Bucket, Object, Wanted
from natix_lib.storage.local import files_below, one_line, rename, temporary_beside

CLAIM = ".publishing"
THREADS = 16  # transfers at once; a few saturate a pod's network

T = TypeVar("T")


class Remote:
    """An object or prefix; each method does what the function of its name in `natix_lib.storage` says.

    Args:
        uri: The address as the user has named it, for messages.
        bucket: The open bucket of that address.
        name: The object's name or prefix in the bucket.
    """

    def __init__(self, uri: str, bucket: Bucket, name: str) -> None:
        self._uri = uri
        self._bucket = bucket
        self._name = name
        self._folder = name.rstrip("/")

    def fetch_file(self, folder: Path) -> Path:
        source = self._bucket.find(self._name)
        if source is None:
            raise StorageError(f"{self._uri} does not exist")
        target = folder / PurePosixPath(self._name).name
        self._download(source, target)
        return target

    def fetch_folder(self, destination: Path, wanted: Wanted) -> Path:
        return self.stage(destination, wanted)[0]

    def stage(self, destination: Path, wanted: Wanted) -> tuple[Path, Callable[[Collection[str]], None]]:
        objects = self._files()
        partial = temporary_beside(destination)
        try:
            with one_line(str(partial.parent)):
                partial.mkdir(parents=True)
            ignores_case = partial.with_name(partial.name.swapcase()).exists()  # macOS, Windows
            names = self._names_in_folder(objects, str.casefold if ignores_case else str)

            def fetch(pair: tuple[PurePosixPath, Object]) -> None:
                name, listed = pair
                if wanted(name.as_posix(), listed.size):
                    self._download(listed, partial / name)
                else:
                    with one_line(str(partial / name)):
                        (partial / name).parent.mkdir(parents=True, exist_ok=True)
                        (partial / name).touch()

            _all(zip(names, objects, strict=True), fetch)
            rename(partial, destination)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        by_name = {name.as_posix(): listed for name, listed in zip(names, objects, strict=True)}

        def fetch_more(chosen: Collection[str]) -> None:
            _all(by_name.keys() & set(chosen), lambda name: self._download(by_name[name], destination / name))

        return destination, fetch_more

    def files(self) -> list[tuple[str, Callable[[Path], None]]]:
        one = None if self._name.endswith("/") else self._bucket.find(self._name)
        return [(each.address, partial(self._download, each)) for each in ([one] if one else self._files())]

    def fingerprint(self) -> str:
        return sha256_bytes(canonical_json([[file.name, *file.state] for file in self._files()]))

    def sizes(self) -> dict[str, int]:
        return {file.name.removeprefix(f"{self._folder}/"): file.size for file in self._files()}

    def write_file(self, content: bytes) -> None:
        self._bucket.write(self._name, content)

    def file_names(self) -> list[str]:
        prefix = f"{self._folder}/"
        files = self._bucket.list(prefix, deep=False)
        return sorted(file.name.removeprefix(prefix) for file in files if file.name != prefix)

    def remove_file(self) -> None:
        if file := self._bucket.find(self._name):
            self._bucket.remove(file)

    def mirror(self, path: Path) -> None:
        def send(named_file: tuple[str, Path]) -> None:
            name, file = f"{self._folder}/{named_file[0]}".rstrip("/"), named_file[1]
            there = self._bucket.find(name)
            if there is None or not self._bucket.matches(there, file):
                self._bucket.write(name, file)

        _all(files_below(path), send)

    def remove_folder(self) -> None:
        _all(self._bucket.list(f"{self._folder}/"), self._bucket.remove)

    def publish_folder(self, folder: Path, manifest_name: str) -> None:
        claim = self._create(CLAIM, b"")
        if self._bucket.find(f"{self._folder}/{manifest_name}"):
            self._bucket.remove(claim)
            raise StorageError(f"cannot publish to {self._uri}: it already holds {manifest_name}, name another place")
        files = [(name, path) for name, path in files_below(folder) if name != manifest_name]
        _all(files, lambda named_file: self._create(*named_file))
        self._create(manifest_name, folder / manifest_name)
        self._bucket.remove(claim)

    def _create(self, name: str, content: bytes | Path) -> Object:
        """Write an object below the prefix where none is."""
        created = self._bucket.write(f"{self._folder}/{name}", content, only_new=True)
        if created is None:
            raise StorageError(
                f"cannot publish to {self._uri}: another run is publishing there, or was stopped while it did ({CLAIM})"
            )
        return created

    def _files(self) -> list[Object]:
        """All objects below the prefix, sorted by name; one that ends in a slash is a folder's in a console."""
        files = [file for file in self._bucket.list(f"{self._folder}/") if not file.name.endswith("/")]
        if not files:
            raise StorageError(f"{self._uri} holds no object")
        return sorted(files, key=lambda file: file.name)

    def _download(self, source: Object, target: Path) -> None:
        """Download one object to `target`, compared with its checksum, whole or not at all."""
        part = temporary_beside(target)
        with one_line(source.address):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._bucket.download(source, part)
                if not self._bucket.matches(source, part):
                    raise StorageError(f"{source.address} does not match its {source.checksum}")
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)

    def _names_in_folder(self, objects: list[Object], same: Callable[[str], str]) -> list[PurePosixPath]:
        """Names of objects as files below one folder, all different and none a folder of another.

        Args:
            objects: The objects below the prefix.
            same: Function that gives equal texts for names that the disk takes for one: `str.casefold` where case does
                not count.

        Raises:
            StorageError: If a name leaves the folder, cannot be a file's, or two names would be one file: an object
                store keeps `x//y`, `x/./y` and `x/y` apart, and has `x` beside `x/y`.
        """
        uri, names = self._uri, []
        taken: dict[PurePosixPath, str] = {}
        for listed in objects:
            name = PurePosixPath(listed.name.removeprefix(f"{self._folder}/"))
            if name.is_absolute() or ".." in name.parts:
                raise StorageError(f"{uri}: object {listed.name!r} has a name that leaves the folder")
            if grammar.CONTROL.search(listed.name) or not name.parts:
                raise StorageError(f"{uri}: object {listed.name!r} has a name that no file should have: rename it")
            place = PurePosixPath(same(name.as_posix()))
            if place in taken:
                raise StorageError(f"{uri}: objects {taken[place]!r} and {listed.name!r} would be one file: rename one")
            taken[place] = listed.name
            names.append(name)
        for place, object_name in taken.items():
            if inside := next((parent for parent in place.parents if parent in taken), None):
                raise StorageError(
                    f"{uri}: object {taken[inside]!r} would be a file and, for {object_name!r}, a folder: rename one"
                )
        return names


def _all(items: Iterable[T], work: Callable[[T], object]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(work, items):
            pass
