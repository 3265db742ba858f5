"""The verbs on what lies in a bucket, written once over the primitives of `bucket.Bucket`.

Every object is compared with its listed checksum after the transfer: a client's own check trusts a header that a proxy
may drop.

Publishing must never leave a mixture of two publishers' files. The publisher first claims the place: it creates
`<uri>/.publishing` on the condition that it does not exist, which one of two can do; it then uploads the files, and
the manifest last, each on the condition that none is there. Where one is, its content decides: an answer that was lost
has the publisher ask again, and it then finds its own. So the claim's content is a number of this publisher alone. A
publisher that was killed leaves a claim and no manifest, so nothing there can be taken for a bundle, and the next
publisher is told. Folders named by content hash
were rejected: a consumer wants the address that the config names.
"""

import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from natix_lib import grammar, repeats
from natix_lib.errors import StorageError
from natix_lib.files import canonical_json, sha256_bytes
from natix_lib.storage.bucket import THREADS, Bucket, Damaged, Gone, Object, Staged, Wanted
from natix_lib.storage.local import files_below, one_line, rename, temporary_beside
from natix_lib.storage.staging import kept

CLAIM = ".publishing"
MOMENTS = 3  # how often a folder is read before it counts as one that does not rest
TRIES = 3  # how often an object is received before it counts as one that does not match its checksum

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
        part = temporary_beside(destination)
        try:
            self._fill(part, wanted, self._files(), self._download)
            rename(part, destination)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return destination

    @contextmanager
    def staged(self, place: Path, wanted: Wanted) -> Iterator[Staged]:
        objects = self._files()
        with ExitStack() as opened:
            with one_line(str(place)):
                here = opened.enter_context(kept(place, self._uri, sum(each.size for each in objects)))
            objects = self._fill(here.tree, wanted, objects, partial(here.put, download=self._download))
            with one_line(str(place)):
                here.settle(objects)
            by_name = {each.name.removeprefix(f"{self._folder}/"): each for each in objects}

            def fetch(names: Collection[str]) -> None:
                def put(name: str) -> None:
                    with one_line(by_name[name].address):
                        (here.tree / name).unlink(missing_ok=True)
                        here.put(by_name[name], here.tree / name, self._download)

                try:
                    _all(by_name.keys() & set(names), put)
                except Gone as error:
                    raise StorageError(f"{self._uri} was changed while it was read: {error}") from error

            yield Staged(here.tree, fetch)

    def _fill(
        self, folder: Path, wanted: Wanted, objects: list[Object], put: Callable[[Object, Path], None]
    ) -> list[Object]:
        """Make `folder` of the objects as they were at one moment: it is made anew when they have changed meanwhile.

        Returns:
            The objects of that moment.
        """
        for _ in range(MOMENTS):
            shutil.rmtree(folder, ignore_errors=True)
            with one_line(str(folder.parent)):
                folder.mkdir(parents=True)
            ignores_case = folder.with_name(folder.name.swapcase()).exists()  # macOS, Windows
            names = self._names_in_folder(objects, str.casefold if ignores_case else str)
            was_there = True
            try:
                _all(zip(names, objects, strict=True), partial(_put_into, folder, wanted, put))
            except Gone:
                was_there = False
            before, objects = objects, self._files()
            if was_there and _moment(before) == _moment(objects):
                return objects
        raise StorageError(
            f"{self._uri} was changed each of the {MOMENTS} times that it was read: wait until nothing is written there"
        )

    def files(self) -> list[tuple[str, Callable[[Path], None]]]:
        return [(each.address, partial(self._download, each)) for each in self._one_or_files()]

    def fingerprint(self, status_change: bool, left_out: Callable[[str], bool]) -> str:
        """Of the object of this name and of all below it: where there are both, a reader may take either."""
        one = self._bucket.find(self._folder)
        objects = [*([one] if one else []), *self._below()]
        if not objects:
            raise StorageError(f"{self._uri} holds no object")
        content = [
            [each.name, each.size, *([each.checksum] if each.checksum else each.state)]
            for each in objects
            if not any(map(left_out, each.name[len(self._folder) :].split("/")))
        ]
        return sha256_bytes(canonical_json(content))

    def sizes(self) -> dict[str, int]:
        above = str(PurePosixPath(self._name).parent)
        return {
            file.name.removeprefix(f"{above if file.name == self._name else self._folder}/"): file.size
            for file in self._one_or_files()
        }

    def write_file(self, content: bytes) -> None:
        self._bucket.write(self._name, content)

    def file_names(self) -> list[str]:
        prefix = f"{self._folder}/"
        files = self._bucket.list(prefix, deep=False)
        return sorted(file.name.removeprefix(prefix) for file in files if file.name != prefix)

    def remove_file(self) -> None:
        if file := self._bucket.find(self._name):
            self._remove(file)

    def mirror(self, path: Path) -> None:
        def send(named_file: tuple[str, Path]) -> None:
            name, file = f"{self._folder}/{named_file[0]}".rstrip("/"), named_file[1]
            there = self._bucket.find(name)
            if there is None or not self._bucket.matches(there, file):
                self._bucket.write(name, file)

        _all(files_below(path), send)

    def remove_folder(self) -> None:
        _all(self._bucket.list(f"{self._folder}/"), self._remove)

    def publish_folder(self, folder: Path, manifest_name: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            own = Path(scratch) / CLAIM
            own.write_text(uuid.uuid4().hex)
            claim = self._create(CLAIM, own)
        if self._bucket.find(f"{self._folder}/{manifest_name}"):
            self._remove(claim)
            raise StorageError(f"cannot publish to {self._uri}: it already holds {manifest_name}, name another place")
        files = [(name, path) for name, path in files_below(folder) if name != manifest_name]
        _all(files, lambda named_file: self._create(*named_file))
        self._create(manifest_name, folder / manifest_name)
        self._remove(claim)

    def _remove(self, listed: Object) -> None:
        with suppress(Gone):  # another was quicker, or an answer was lost
            self._bucket.remove(listed)

    def _create(self, name: str, file: Path) -> Object:
        """Write an object below the prefix where none is, or this one."""
        name = f"{self._folder}/{name}"
        created = self._bucket.write(name, file, only_new=True)
        if created is None:
            created = self._bucket.find(name)
            if created is None or not self._bucket.matches(created, file):
                raise StorageError(
                    f"cannot publish to {self._uri}: another run is publishing there, or was stopped while it did "
                    f"({CLAIM})"
                )
        return created

    def _one_or_files(self) -> list[Object]:
        """The object of this name, or else all objects below the prefix."""
        one = self._bucket.find(self._name) if self._name and not self._name.endswith("/") else None
        return [one] if one else self._files()

    def _files(self) -> list[Object]:
        """All objects below the prefix, sorted by name, of which there must be one."""
        files = self._below()
        if not files:
            raise StorageError(f"{self._uri} holds no object")
        return files

    def _below(self) -> list[Object]:
        """All objects below the prefix, sorted by name; one that ends in a slash is a folder's in a console."""
        files = [file for file in self._bucket.list(f"{self._folder}/") if not file.name.endswith("/")]
        return sorted(files, key=lambda file: file.name)

    def _download(self, source: Object, target: Path) -> None:
        """Download one object to `target`, compared with its checksum, whole or not at all."""
        for left in reversed(range(TRIES)):
            try:
                return self._download_once(source, target)
            except Damaged as error:
                if not left:
                    raise
                repeats.say(error)

    def _download_once(self, source: Object, target: Path) -> None:
        part = temporary_beside(target)
        with one_line(source.address):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                received = self._bucket.download(source, part)
                if received.checksum and not self._bucket.matches(received, part):
                    raise Damaged(f"{source.address} does not match its {received.checksum}")
                if not received.checksum and part.stat().st_size != source.size:
                    size = part.stat().st_size
                    raise Damaged(f"{source.address} has {source.size} bytes, of which {size} were received")
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


def _moment(objects: Iterable[Object]) -> list[list[str | int | None]]:
    return [[each.name, *each.state] for each in objects]


def _put_into(
    folder: Path, wanted: Wanted, put: Callable[[Object, Path], None], named: tuple[PurePosixPath, Object]
) -> None:
    name, listed = named
    target = folder / name
    with one_line(listed.address):
        if wanted(name.as_posix(), listed.size):
            put(listed, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()


def _all(items: Iterable[T], work: Callable[[T], object]) -> None:
    """Do the work on all items, many at once; after the first failure nothing new is begun or waited for.

    Each thread takes the next item when it is done with one: a million of them waiting in a pool would be a gigabyte.
    """
    waiting, taking, failed = iter(items), threading.Lock(), threading.Event()

    def take() -> None:
        repeats.STOP.set(failed)
        while not failed.is_set():
            with taking:
                item = next(waiting, None)
            if item is None:
                return
            try:
                work(item)
            except BaseException:
                failed.set()
                raise

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for thread in [pool.submit(take) for _ in range(THREADS)]:
                thread.result()
        finally:
            failed.set()  # this thread may have been interrupted
