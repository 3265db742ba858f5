"""One zip or tar that holds a data set: everything it would write is checked first, then it is unpacked.

`extractall` was rejected: zipfile drops `..` from names without a word and writes a link as text, and tarfile's filters
know no limits. Here only regular files are written, a link to one of them as its copy. Backslashes stand for folders in
a zip without any slash, as some tools of Windows write it; elsewhere they may be part of a name. What cannot be written
as it stands, or is more than a data set, is refused before the first byte. The tar of a cut-off writer ends without its
end mark, and a bad header looks like an end, so the mark is asked for.
"""

import lzma
import posixpath
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from natix_lib.data.listing import is_hidden, role_of_name
from natix_lib.data.rows import readable, some
from natix_lib.errors import DataError

TARS = (".tar", ".tar.gz", ".tgz")  # also the shards of WebDataset
ARCHIVES = (*TARS, ".zip", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MOST_FILES = 10_000_000  # ten times the largest set that natix is planned for
MOST_RATIO = 100  # bytes written for a byte of the archive; images hardly shrink, tables by ten
SMALL = 64 << 20  # bytes that are written at any ratio
PADDING = 1 << 20  # zeros that a tar may end in; tools write 10 KiB
DAMAGE: tuple[type[Exception], ...] = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError),
    *(ValueError, NotImplementedError, KeyError, OverflowError),
)

Member = tuple[str, int, Callable[[], IO[bytes]]]  # name, bytes, and what opens it


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive that is read."""
    return name.lower().endswith(ARCHIVES)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive into `folder`, which must not exist.

    Returns:
        The data set's folder: `folder`, or the one folder that holds everything in it and names no split role.

    Raises:
        DataError: If it is damaged, names what no folder can hold, or is larger than the disk or the limits above.
    """
    name = readable(archive.name)
    is_zip = name.lower().endswith(".zip")
    folder.mkdir(parents=True)
    most = max(SMALL, MOST_RATIO * archive.stat().st_size)
    with one_line(f"archive {name}"):
        with _zip_members(archive) if is_zip else _tar_members(archive) as members:
            _check(members, name, most, shutil.disk_usage(folder).free)
        with _zip_members(archive) if is_zip else _tar_members(archive) as members:
            for path, size, opened in members:
                try:
                    written = _write(folder / path, opened)
                except OSError as error:
                    raise ValueError(f"{path}: {error.strerror or error}") from error
                if written != size:
                    raise DataError(f"archive {name}: {path} has {written} bytes, its header says {size}")
    return _inner(folder)


def _write(target: Path, opened: Callable[[], IO[bytes]]) -> int:
    """Write a member, and give its bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened() as source, target.open("xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        return file.tell()


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Damage that a reader of archives meets in the block, as one line that names it."""
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
        raise DataError(f"{what} cannot be read: {readable(reason)}") from error


def tar_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, none kept, and after the last the proof that it is whole.

    Raises:
        tarfile.TarError: If it does not end in zeros, as every whole tar does.
    """
    while (member := tar.next()) is not None:
        yield member
        tar.members.clear()  # type: ignore[attr-defined]  # or a million members stay in memory
    stream: Any = tar.fileobj
    stream.seek(tar.offset)
    end = stream.read(PADDING)
    if len(end) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends without tar's end mark, so it is cut off")
    if end.strip(b"\0") or stream.read(1):
        raise tarfile.ReadError(f"at byte {tar.offset} stands neither a member nor the end of the archive")


@contextmanager
def _zip_members(archive: Path) -> Iterator[Iterator[Member]]:
    with zipfile.ZipFile(archive) as file:
        entries = file.infolist()
        mark = "/" if any("/" in entry.filename for entry in entries) else "\\"
        yield (_zip_member(file, entry, mark) for entry in entries if not entry.filename.endswith(mark))


def _zip_member(file: zipfile.ZipFile, entry: zipfile.ZipInfo, mark: str) -> Member:
    """A member of a zip in which `mark` stands between folders."""
    if entry.flag_bits & 1:
        raise ValueError("it is encrypted")
    if entry.external_attr >> 28 == 0xA:
        raise ValueError(f"{entry.filename} is a link; put the files themselves into the archive")
    name = entry.filename
    if not entry.flag_bits & 0x800:  # no mark of UTF-8, which many tools write all the same
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace(mark, "/"), entry.file_size, partial(file.open, entry)


@contextmanager
def _tar_members(archive: Path) -> Iterator[Iterator[Member]]:
    with tarfile.open(archive) as tar:
        yield _of_tar(tar)


def _of_tar(tar: tarfile.TarFile) -> Iterator[Member]:
    regular: dict[str, tarfile.TarInfo] = {}
    for member in tar_members(tar):
        name = posixpath.normpath(member.name)
        if member.isdir():
            continue
        if member.isreg():
            regular[name] = member
        elif member.islnk() or member.issym():
            above = posixpath.dirname(name) if member.issym() else ""
            target = posixpath.normpath(posixpath.join(above, member.linkname))
            if target not in regular:
                raise ValueError(f"{name} is a link to {member.linkname}, which is no file of the archive before it")
            regular[name] = regular[target]
        else:
            raise ValueError(f"{name} is a device or a pipe")
        yield member.name, regular[name].size, partial(_extracted, tar, regular[name])


def _extracted(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    assert stream is not None  # it is a regular file
    return stream


def _check(members: Iterable[Member], archive: str, most: int, free: int) -> None:
    """Refuse what must not be written, before anything is.

    Args:
        members: All members.
        archive: Its name.
        most: Bytes that may be written for an archive of its size.
        free: Bytes that the disk has free.

    Raises:
        DataError: If a name leaves the folder or stands twice, or all is too much.
    """
    names: set[str] = set()
    total = 0
    for name, size, _ in members:
        if any(ord(letter) < 32 for letter in name):
            raise DataError(f"archive {archive} holds {name!r}, which is no name of a file")
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            raise DataError(f"archive {archive} holds {name!r}, which leaves the folder that it is unpacked in")
        if "\\" in name:
            raise DataError(
                f"archive {archive} holds {name!r}, where the backslash may stand for a folder or be part of a name: "
                "pack it again with / between folders and no backslash"
            )
        if ":" in name.split("/")[0]:
            raise DataError(f"archive {archive} holds {name!r}: a colon before the first / is refused, as in a drive")
        if (path := posixpath.normpath(name)) in names:
            raise DataError(f"archive {archive} holds {name} twice")
        names.add(path)
        total += size
        over = (
            (len(names) > MOST_FILES, f"{MOST_FILES} files"),
            (total > most, f"{most} bytes, the larger of {SMALL} and {MOST_RATIO} times its size"),
            (total > free, f"{free} bytes, which is all that the disk has free"),
        )
        for is_over, limit in over:
            if is_over:
                raise DataError(f"archive {archive} holds more than {limit}: unpack it by hand and name the folder")


def _inner(folder: Path) -> Path:
    """The one folder in which everything lies, where there is one; __MACOSX and hidden files beside it do not count."""
    inside = [path for path in folder.iterdir() if not is_hidden(path.name)]
    if len(inside) != 1 or not inside[0].is_dir():
        return folder
    is_set = role_of_name(inside[0].name) is None and not inside[0].name.lower().endswith(".parquet")
    return inside[0] if is_set else folder


def refuse_several(archives: list[Path], place: str) -> None:
    """Refuse a folder of archives and no images: what lies beside an archive may describe what is in it.

    Raises:
        DataError: Naming them.
    """
    if archives:
        raise DataError(
            f"data.data_root {place} holds no image but {some(archives)}: an archive is unpacked where it lies alone, "
            "so unpack it, or put all into one"
        )
