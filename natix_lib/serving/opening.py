"""A bundle from where it lies: a folder, or an address of a bucket, from which it is fetched to be loaded.

What is loaded is in memory, or mapped into it, so the fetched files go as soon as the bundle is open: the disk is
needed only while the service starts, and a process that is killed later leaves nothing. Keeping them for the next start
was rejected: that is another machine's as a rule, and a bundle must be hashed whole before it is trusted anyway.

A bucket's content can be replaced, and replicas start at different times, so two of one service could answer by two
bundles. `bundle_sha256`, which evaluation.json and `natix verify` name, tells them apart where the caller gives it.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from natix_lib import storage
from natix_lib.bundle.runtime import Bundle
from natix_lib.errors import BundleError, NatixError, StorageError


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
        return _loaded(Path(address), sha256)
    try:
        with TemporaryDirectory(prefix="natix-") as place:
            folder = Path(place) / "bundle"
            try:
                return _loaded(storage.fetch_folder(address, folder), sha256)
            except NatixError as error:  # of files that no one has named
                raise type(error)(str(error).replace(str(folder), address.rstrip("/"))) from error
    except OSError as error:
        raise StorageError(
            f"{address} cannot be fetched to {error.filename or 'a folder'}: {error.strerror}"
        ) from error


def _loaded(folder: Path, sha256: str) -> Bundle:
    bundle = Bundle.load(folder)
    if sha256 and bundle.documents.sha256 != sha256.lower():
        raise BundleError(f"bundle {folder}: bundle_sha256 must be {sha256}, got {bundle.documents.sha256}")
    return bundle
