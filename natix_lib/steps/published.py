"""What export and renew share: where a finished bundle goes."""

from pathlib import Path

from natix_lib import storage
from natix_lib.contracts import ARTIFACTS
from natix_lib.progress import Lines


def publish(bundle: Path, uri: str) -> None:
    """Publish a bundle that was loaded back where nothing is yet; "" leaves it where it is.

    Raises:
        StorageError: If the place is taken or a transfer fails.
    """
    if uri:
        place = storage.publish_folder(bundle, uri, ARTIFACTS["bundle"].manifest)
        Lines().say(f"published {place}")
