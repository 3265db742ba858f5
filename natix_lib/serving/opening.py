"""A bundle from where it lies: a folder, or an address of a bucket, from which it is fetched to be loaded.

What is loaded is in memory, or mapped into it, so the fetched files go as soon as the bundle is open: the disk is
needed only while the service starts, and a process that is killed later leaves nothing. One that is killed while it
loads leaves its folder, in a pod's `emptyDir` for the next container; so each locks its folder, and removes those that
no living process locks. Keeping them for the next start was rejected: that is another machine's as a rule, and a bundle
must be hashed whole before it is trusted anyway.

A bucket's content can be replaced, and replicas start at different times, so two of one service could answer by two
bundles. `bundle_sha256`, which evaluation.json and `natix verify` name, tells them apart where the caller gives it.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from natix_lib import storage
from natix_lib.bundle.runtime import Bundle
from natix_lib.errors import NatixError, StorageError

PREFIX = "natix-bundle-"
YOUNG_SECONDS = 5.0  # in which whoever makes a folder has surely locked it


def open_bundle(address: str, sha256: str = "") -> Bundle:
    """Fetch a bundle where it lies in a bucket, and load it.

    Args:
        address: The bundle's folder, or its address in a bucket.
        sha256: The `bundle_sha256` that it must have; "" takes any.

    Returns:
        The bundle; its folder is gone when it was fetched.

    Raises:
        StorageError: If it cannot be fetched.
        ContractError: If a part is missing, malformed, changed, too much, or contradicts another.
        BundleError: If the model cannot be opened, its golden logits are not repeated here, or it is another bundle.
    """
    if not storage.is_remote(address):
        return Bundle.load(address, sha256)
    try:
        _remove_left()
        with TemporaryDirectory(prefix=PREFIX) as place, _locked(Path(place)):
            folder = Path(place) / "bundle"
            try:
                return Bundle.load(storage.fetch_folder(address, folder), sha256)
            except NatixError as error:  # of files that no one has named
                raise type(error)(str(error).replace(str(folder), address.rstrip("/"))) from error
    except OSError as error:
        raise StorageError(
            f"{address} cannot be fetched to {error.filename or 'a folder'}: {error.strerror}"
        ) from error


def _remove_left() -> None:
    """Remove the folders of processes of this user that were killed while they loaded."""
    for left in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is locked, or another has removed it
            state = left.lstat()
            if state.st_uid == os.getuid() and time.time() - state.st_mtime > YOUNG_SECONDS:
                with _locked(left):
                    shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which ends with the process however that ends.

    Raises:
        OSError: If another holds it, or it is no folder.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
