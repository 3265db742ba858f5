"""The verbs on a local path. What is fetched is used where it lies; what is published is copied and renamed."""

import errno
import filecmp
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from natix_lib import grammar
from natix_lib.errors import StorageError
from natix_lib.files import replacing, write_bytes
from natix_lib.repeats import Away
from natix_lib.storage.bucket import Staged, Wanted, no_name

# What the system says of a volume of the network whose server does not answer just now.
AWAY = {errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH}


class Local:
    """A file or folder on the disk; each method does what the function of its name in `natix_lib.storage` says.

    Raises:
        StorageError: If `uri` is no local path or the disk refuses it.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        try:
            if not uri:
                raise ValueError("must name a file or folder")
            self._path = Path(grammar.place(uri))
        except ValueError as error:
            raise StorageError(f"a path {error}, got {uri!r}") from error
        with one_line(uri):
            self._path.exists()  # fails for a name that is too long and for a folder that may not be entered

    def fetch_file(self, folder: Path) -> Path:
        if not self._path.is_file():
            uri = self._uri
            raise StorageError(f"{uri} is no file" if self._path.exists() else f"file {uri} does not exist")
        return self._path

    def fetch_folder(self, destination: Path, wanted: Wanted) -> Path:
        if not self._path.is_dir():
            uri = self._uri
            raise StorageError(f"{uri} is no folder" if self._path.exists() else f"folder {uri} does not exist")
        return self._path

    @contextmanager
    def staged(self, place: Path, wanted: Wanted) -> Iterator[Staged]:
        yield Staged(self.fetch_folder(place, wanted), lambda names: None)

    def fingerprint(self, status_change: bool, left_out: Callable[[str], bool]) -> str:
        root = self._path
        if not root.exists():
            raise StorageError(f"{self._uri} does not exist")
        digest = hashlib.sha256()
        files, repeated = ([("", root)], []) if root.is_file() else _through_links(root, left_out)
        for name, path in files:
            try:
                status = path.stat()
                state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns if status_change else ''}"
            except OSError:
                state = "leads nowhere"
            digest.update(os.fsencode(name) + b"\0" + state.encode() + b"\n")  # no name holds a zero byte
        for name, first in repeated:
            digest.update(os.fsencode(name) + b"\0" + f"folder {first!a}\n".encode())
        return digest.hexdigest()

    def sizes(self) -> dict[str, int]:
        root = self._path
        if not root.exists():
            raise StorageError(f"{self._uri} does not exist")
        files = [(root.name, root)] if root.is_file() else _through_links(root, no_name)[0]
        return {name: path.stat().st_size if path.exists() else 0 for name, path in files}

    def write_file(self, content: bytes) -> None:
        with one_line(self._uri):
            write_bytes(self._path, content)

    def file_names(self) -> list[str]:
        with one_line(self._uri):
            if not self._path.is_dir():
                return []
            with os.scandir(self._path) as entries:  # tells files in one look: one that goes meanwhile was there
                return sorted(entry.name for entry in entries if entry.is_file())

    def remove_file(self) -> None:
        with one_line(self._uri):
            self._path.unlink(missing_ok=True)

    def mirror(self, path: Path) -> None:
        for name, file in files_below(path):
            target = self._path / name
            with one_line(str(target)):
                if target.is_file() and filecmp.cmp(file, target, shallow=False):
                    continue
                with replacing(target) as temporary:
                    shutil.copyfile(file, temporary)

    def remove_folder(self) -> None:
        with one_line(self._uri):
            if self._path.is_dir():
                shutil.rmtree(self._path)  # refuses a link, and follows none

    def publish_folder(self, folder: Path, manifest_name: str) -> None:
        if self._path.exists():
            raise StorageError(f"cannot publish to {self._uri}: it exists already, name another place")
        partial = temporary_beside(self._path)
        try:
            shutil.copytree(folder, partial)
            rename(partial, self._path)  # the whole folder appears at once, so no claim is needed
        except OSError as error:
            raise StorageError(f"cannot publish to {self._uri}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def files_below(root: Path) -> list[tuple[str, Path]]:
    """Names below `root`, with slashes and sorted, and paths of all files; a file alone has the name ""."""
    if root.is_file():
        return [("", root)]
    return [(file.relative_to(root).as_posix(), file) for file in sorted(root.rglob("*")) if file.is_file()]


def temporary_beside(target: Path) -> Path:
    """A name beside `target`, short: the target's may have all the 255 bytes that a name can have."""
    return target.with_name(f".{uuid.uuid4().hex[:12]}.part")


def rename(partial: Path, target: Path) -> None:
    """Give a finished folder its name.

    Raises:
        StorageError: If something has the name already, or the disk refuses.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(partial, target)  # noqa: PTH104 - Path.rename would do the same; an existing folder raises
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error


@contextmanager
def one_line(uri: str) -> Iterator[None]:
    """What the disk refuses in the block, as one line that names `uri`; `Away` where it may pass by itself."""
    try:
        yield
    except OSError as error:
        kind = Away if error.errno in AWAY else StorageError
        raise kind(f"{uri}: {error.strerror or error}") from error
    except StorageError as error:  # of `files`, which knows no `Away`
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in AWAY:
            raise Away(str(error)) from error
        raise


def _through_links(root: Path, left_out: Callable[[str], bool]) -> tuple[list[tuple[str, Path]], list[tuple[str, str]]]:
    """What lies below `root` but what is left out, links followed, each folder once: links to links would multiply it.

    A folder is known by its device and inode. The way down is a list, because folders nest deeper than calls may.

    Returns:
        Names and paths of all files, in an order that the names give; and names of the folders that were entered
        under another name already, with that name.
    """
    files: list[tuple[str, Path]] = []
    repeated: list[tuple[str, str]] = []
    entered: dict[tuple[int, int], str] = {}
    pending: list[tuple[str, Path | os.DirEntry[str]]] = [("", root)]
    while pending:
        prefix, folder = pending.pop()
        try:
            status = folder.stat()
            first = entered.setdefault((status.st_dev, status.st_ino), prefix)
            if first != prefix:
                repeated.append((prefix, first))
                continue
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            files.append((prefix, Path(folder) / ".unreadable"))
            continue
        folders = []
        for entry in entries:
            if left_out(entry.name):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # links in a circle
                is_folder = False
            if is_folder:
                folders.append((f"{prefix}{entry.name}/", entry))
            else:
                files.append((prefix + entry.name, Path(entry)))
        pending += reversed(folders)
    return files, repeated
