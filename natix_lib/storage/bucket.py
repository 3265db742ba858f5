"""What a kind of bucket must be able to do; `remote.py` makes the verbs of it.

A module of this room that is named as a scheme of `grammar.SCHEMES` has `open_bucket(bucket_name, uri)`, which gives a
`Bucket`; `uri` is the address that the user has named, for messages.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from natix_lib.errors import StorageError

THREADS = 16  # transfers at once; a few saturate a pod's network
CONNECTIONS = 2 * THREADS  # that a client keeps: theirs, and those of a second address or a checkpoint beside them

Wanted = Callable[[str, int], bool]  # whether a file of this name and so many bytes is wanted


def everything(name: str, size: int) -> bool:
    """Want every file."""
    return True


def no_name(name: str) -> bool:
    """Leave out nothing."""
    return False


@dataclass(frozen=True)
class Object:
    """One object as the service listed it."""

    name: str  # in the bucket, the prefix included
    address: str  # with scheme and bucket, for messages
    size: int  # bytes
    checksum: str  # of the content, with its method: "crc32c AAAAAA=="; "" where the service has not told it
    state: tuple[str | int | None, ...]  # as JSON takes it; differs after every change of the object
    handle: Any  # by which the service's client knows it


class Gone(StorageError):
    """There is no such object, or no longer in the version that was listed."""


class Damaged(StorageError):
    """What was received is not the object: it was damaged on its way, and may be whole the next time."""


@dataclass(frozen=True)
class Staged:
    """What a block reads of an address.

    Attributes:
        folder: The folder of its files.
        fetch: Fetches the objects of some names below the address, in parallel, over the empty files that stand for
            them; names that are not there are passed over. StorageError if a transfer fails or one has changed.
    """

    folder: Path
    fetch: Callable[[Collection[str]], None]


class Bucket(Protocol):
    """An open bucket. Every request is repeated while its error may pass, as `natix_lib.repeats` says; every failure is
    a StorageError of one line, `Away` where it has not passed.

    A disk is no bucket: its files are used where they lie, a folder is renamed in one step and links lead elsewhere,
    so `local.py` has verbs of its own.
    """

    def find(self, name: str) -> Object | None:
        """The object of this name; None when there is none."""

    def list(self, prefix: str, deep: bool = True) -> list[Object]:
        """All objects whose name begins with `prefix`, which ends in a slash; only those without a further one if not
        `deep`.
        """

    def download(self, source: Object, path: Path) -> Object:
        """Write the content that was listed to `path`; it may be left there in part when the transfer fails.

        Returns:
            The object with all that its answer has told: its checksum, where the listing had none.

        Raises:
            Gone: If it was removed or replaced since it was listed.
            Damaged: If it does not match the checksum of its answer.
            StorageError: If it cannot be read.
        """

    def matches(self, listed: Object, path: Path) -> bool:
        """Whether a file has the checksum that was listed, and so the content."""

    def write(self, name: str, content: bytes | Path, only_new: bool = False) -> Object | None:
        """Write an object from bytes or a file, whole or not at all, with the checksum of what was sent.

        Returns:
            The object; None if `only_new` and there is one already. Of two that ask for a new one at once, one gets it.
        """

    def remove(self, listed: Object) -> None:
        """Remove an object, in the version that was listed."""
