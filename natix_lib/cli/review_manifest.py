"""The manifest that the labels of a review become: where it lies, and how it names an image there.

Names start from the deepest folder that holds all images which were scored, and the manifest lies in it, so that it
goes with the images and holds no path of one machine. Whether the manifest's reader takes a name is asked of the reader
itself, row by row, before a person has labelled anything.
"""

from itertools import takewhile
from pathlib import Path

from natix_lib import storage
from natix_lib.cli.predictions import as_text
from natix_lib.config import Columns
from natix_lib.data.delimited import delimited
from natix_lib.data.rows import image_path
from natix_lib.errors import DataError

HEADER = "image,label\n"


def address_of(name: str) -> str:
    """Where an image is: a bucket's address, or an absolute path without `..`; the last link of it is not followed."""
    if storage.is_remote(name):
        return name
    path = Path(name).absolute()
    return str(path.parent.resolve() / path.name if ".." in path.parts else path)


class CommonFolder:
    """The deepest folder, or bucket's prefix, that holds every image so far; memory does not grow with their number."""

    def __init__(self) -> None:
        self._parts: list[str] | None = None
        self._first = ""

    def add(self, address: str) -> None:
        """Let it hold the image at an address of `address_of` too.

        Raises:
            DataError: If no folder can: the image lies in another bucket than those before, or one of both is local.
        """
        parts = address.split("/")[:-1]
        if self._parts is None:
            self._parts, self._first = parts, address
        root = 3 if storage.is_remote(address) else 1  # "gs:", "" and the bucket's name; "" before the first slash
        if parts[:root] != self._parts[:root]:
            raise DataError(
                f"one manifest must name all images from one folder or bucket, got {self._first} and {address}: review "
                "them one after the other"
            )
        same = takewhile(lambda pair: pair[0] == pair[1], zip(self._parts, parts, strict=False))
        self._parts = [part for part, _ in same]

    @property
    def address(self) -> str:
        """The folder; "/" is the root of local files."""
        return "/".join(self._parts or []) or "/"

    def name(self, address: str) -> str:
        """What an image in it is called from it."""
        return address.removeprefix(self.address).removeprefix("/")


def quoted(text: str) -> str:
    """A cell of the manifest."""
    return '"' + text.replace('"', '""') + '"'


def image_cell(name: str) -> str:
    """A name as a cell, before which a spreadsheet sees no formula.

    Raises:
        DataError: With the reason alone, if who reads the manifest would take it for another name or refuse it.
    """
    cell = quoted(as_text(name))
    try:
        _, records, _, _ = delimited(f"{HEADER}{cell},{quoted('a class')}\n", "the manifest", Columns())
        (read,) = [image_path(record["image"], "its name") for record in records]
    except (DataError, ValueError) as error:
        raise DataError(f"no manifest can name it: {error}") from error
    if read != name:
        raise DataError(f"no manifest can name it: it is read as {read!r}")
    return cell
