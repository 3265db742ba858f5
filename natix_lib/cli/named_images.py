"""What a person names to `natix predict`, and the images that are meant by it.

A word is an address of a bucket, `-` for names on standard input, a folder, a manifest, a pattern, or else an image.
What exists under a name is taken before a pattern of the same letters. Whatever is named is found before anything is
scored, but for standard input, which is read as it comes; a name alone is kept of an image, and of a bucket's object
what was listed of it.

A word that leads to no image is an error and ends the call, because nothing can be written of it. An image that cannot
be read is one of its images all the same and has its row: addresses of the web, names on a list that are gone, folders
on a list. Patterns are expanded by pathlib, whose `**` does not follow links, so that links in a circle end.
"""

import codecs
import itertools
import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import UnsupportedOperation
from pathlib import Path, PurePosixPath
from stat import S_ISDIR, S_ISREG
from tempfile import TemporaryDirectory
from typing import BinaryIO

import typer
from PIL import Image

from natix_lib import grammar, storage
from natix_lib.bundle.pictures import Opener
from natix_lib.cli.extras import CLIENTS, is_here, missing, require
from natix_lib.config import Columns
from natix_lib.data.ahead import ahead
from natix_lib.data.decode import MAX_PIXELS, decode, decode_file, file_bytes
from natix_lib.data.listing import IMAGE_SUFFIXES, is_hidden, list_folder
from natix_lib.data.rows import cell, readable
from natix_lib.data.tables import TABLES, as_written, read_table
from natix_lib.errors import ConfigError, DataError, StorageError
from natix_lib.progress import WARNING

STDIN = "-"
MAGIC = frozenset("*?[")
BLOCK = 65_536  # bytes of standard input taken at once, and the most of a line that waits for its end
SIGNAL_SECONDS = 0.5  # between looks at signals while nothing comes
FETCHES = 16  # objects fetched at once, and waiting to be decoded: a few saturate a pod's network


@dataclass(frozen=True)
class NamedImage:
    """An image by its name, for a row, and how it is opened, or DataError with the reason alone."""

    name: str
    open: Opener


@dataclass(frozen=True)
class NamedImages:
    """Images in the order in which they were named; `count` is None when standard input is among them."""

    images: Iterator[NamedImage]
    count: int | None


def find_images(words: Iterable[str]) -> NamedImages:
    """The images that words of the command line mean.

    Raises:
        ConfigError: If a word is empty, or a pattern matches nothing.
        DataError: If a folder or manifest has no image or cannot be read.
        StorageError: If a bucket cannot be listed or holds no image at its address.
    """
    parts = [_of_word(word) for word in words]
    counts = [part.count for part in parts]
    images = itertools.chain.from_iterable(part.images for part in parts)
    return NamedImages(images, None if None in counts else sum(filter(None, counts)))


def _of_word(word: str, is_pattern: bool = True) -> NamedImages:
    if not word:
        raise ConfigError("an image must have a name, got ''")
    if word == STDIN and is_pattern:
        return NamedImages(_of_standard_input(), None)
    if storage.is_remote(word):
        return _of_bucket(word)
    path, mode = Path(word), _mode(word)
    if word.lower().endswith(TABLES) and (S_ISREG(mode) or (S_ISDIR(mode) and word.endswith(".parquet"))):
        return _of_manifest(path)
    if S_ISDIR(mode):
        return _of_folder(word, path)
    if not mode and is_pattern and MAGIC & set(word) and not grammar.ADDRESS.fullmatch(word):
        parts = [_of_word(name, is_pattern=False) for name in _matches(word)]
        images = itertools.chain.from_iterable(part.images for part in parts)
        return NamedImages(images, sum(part.count or 0 for part in parts))
    return NamedImages(iter([_image(word)]), 1)


def _mode(name: str) -> int:
    """Kind of what lies at a path; 0 where nothing does that this process can see."""
    try:
        return Path(name).stat().st_mode
    except (OSError, ValueError):
        return 0


def _image(name: str) -> NamedImage:
    return NamedImage(name, partial(_open, name))


def _open(name: str, shorter_side: int) -> Image.Image:
    if storage.is_remote(name):
        client = CLIENTS.get(str(grammar.scheme(name)))
        if client and not is_here(client):  # of a list, whose other images have their rows
            raise DataError(str(missing(client)))
        with TemporaryDirectory(prefix="natix-") as folder:
            path = Path(folder) / "image"
            return _opener(path, lambda _: storage.fetch_file(name, folder).rename(path))(shorter_side)
    try:
        return decode_file(name, shorter_side)
    except DataError:
        if not _mode(name):
            _require_place(name)
        raise


def _require_place(name: str) -> None:
    """Say what is wrong with a name that can be no file's, which is more than that there is none."""
    try:
        grammar.place(name)
    except ValueError as error:
        raise DataError(f"it {error}") from error


def _of_standard_input() -> Iterator[NamedImage]:
    if sys.stdin is None:
        raise ConfigError("standard input is closed: give it a list of images, one a line")
    for number, line in enumerate(_lines(sys.stdin.buffer)):
        if name := os.fsdecode((line if number else line.removeprefix(codecs.BOM_UTF8)).rstrip(b"\r\n")):
            yield _image(name)


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines of a stream as they come.

    A read begins when there is something to read: Python looks for signals before it begins, and one that comes between
    the two, while another thread is given its turn, would wait for as long as the read does.
    """
    rest = b""
    while block := _block(stream):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
        if len(rest) > BLOCK:
            raise ConfigError(f"a line of standard input has more than {BLOCK} bytes: give an image a line")
    if rest:
        yield rest


def _block(stream: BinaryIO) -> bytes:
    with suppress(UnsupportedOperation):  # not a descriptor's: nothing is waited for
        while not select.select([stream.fileno()], [], [], SIGNAL_SECONDS)[0]:
            pass
    return stream.read1(BLOCK)  # type: ignore[attr-defined, no-any-return]


def _of_folder(word: str, path: Path) -> NamedImages:
    listing = list_folder(path)
    left_out = listing.left_out(listing.images)
    if not listing.images:
        raise DataError(f"folder {word} holds no image" + "".join(f"; {line}" for line in left_out))
    for line in left_out:
        typer.echo(f"{WARNING}folder {readable(word)}: {line}", err=True)
    images, count = listing.images, len(listing.images)
    return NamedImages((_image(str(path / name)) for name in images), count)


def _of_manifest(path: Path) -> NamedImages:
    if path.name.lower().endswith(".parquet"):
        require("pyarrow")
    table = read_table(path.parent, Path(path.name), Columns())
    if table.warning:
        typer.echo(f"{WARNING}{table.warning}", err=True)
    column = as_written(table.name, table.header, Columns()).image
    if column not in table.header:
        raise DataError(f"{path} has no column {column!r}; it has {', '.join(table.header[:12]) or 'none'}")
    names = [cell(record.get(column)) for record in table.records]
    if not names:
        raise DataError(f"{path} lists no image")
    empty = next((place for name, place in zip(names, table.places, strict=True) if name is None), None)
    if empty:
        raise DataError(f"{empty}: {column} is empty")
    images = (_image(name if "://" in name else str(path.parent / name)) for name in names if name)
    return NamedImages(images, len(names))


def _matches(pattern: str) -> list[str]:
    """Names that match, sorted; hidden ones only where the pattern writes the dot."""
    path = Path(pattern)
    first = next(number for number, part in enumerate(path.parts) if MAGIC & set(part))
    base, rest = Path(*path.parts[:first]), path.parts[first:]
    asks_hidden = any(part.startswith(".") for part in rest)
    try:
        matches = sorted(base.glob("/".join(rest)))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the pattern {pattern} cannot be followed: {error}") from error
    if not asks_hidden:
        matches = [match for match in matches if not any(map(is_hidden, match.relative_to(base).parts))]
    if not matches:
        raise ConfigError(f"{pattern} matches nothing")
    return list(map(str, matches))


def _of_bucket(uri: str) -> NamedImages:
    files = storage.remote_files(uri)
    if len(files) > 1 or files[0][0] != uri:
        files = [(address, fetch) for address, fetch in files if _is_shown(address.removeprefix(uri))]
    if not files:
        raise StorageError(f"{uri} holds no image: no name ends in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return NamedImages(_fetched(files), len(files))


def _is_shown(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(map(is_hidden, path.parts))


def _fetched(files: list[tuple[str, Callable[[Path], None]]]) -> Iterator[NamedImage]:
    """The images of a bucket, fetched in threads ahead of the decoder."""
    with TemporaryDirectory(prefix="natix-") as folder:

        def content(numbered: tuple[int, tuple[str, Callable[[Path], None]]]) -> NamedImage:
            number, (address, fetch) = numbered
            return NamedImage(address, _opener(Path(folder) / str(number), fetch))

        yield from ahead(content, enumerate(files), FETCHES, FETCHES)


def _opener(path: Path, fetch: Callable[[Path], object]) -> Opener:
    """Fetch a file; what opens it from memory, or raises why it cannot be."""

    def refuse(reason: str, _: int) -> Image.Image:
        raise DataError(reason)

    try:
        fetch(path)
        content = file_bytes(path)
        path.unlink()
    except (StorageError, DataError, OSError) as error:
        return partial(refuse, str(error))
    return partial(decode, content, MAX_PIXELS)
