"""The local folder of data.data_root: itself, fetched from a bucket, or unpacked from the one archive that it is."""

import os
from collections.abc import Callable
from pathlib import Path

from natix_lib import storage
from natix_lib.config import DataSource
from natix_lib.data.archives import TARS, is_archive, unpack
from natix_lib.data.listing import is_hidden
from natix_lib.data.shards import holds_samples
from natix_lib.errors import DataError
from natix_lib.storage.bucket import Wanted, everything

FETCHED = "source"  # where in the scratch folder a bucket's objects come to lie
BESIDE = (".md", ".txt", ".pdf", ".rst", "")  # what may lie beside an archive and is not of the set: README, LICENSE


def local_root(
    settings: DataSource,
    scratch: Path,
    wanted: Wanted = everything,
    fetch: Callable[[str, Path, Wanted], Path] = storage.fetch_folder,
) -> Path:
    """The folder that the data set is read from.

    Args:
        settings: Where it is, and its format.
        scratch: Empty folder for what is fetched or unpacked; it must last as long as the images are read.
        wanted: Which objects of a bucket are fetched, as `storage.fetch_folder` asks.
        fetch: What fetches a bucket's prefix, with the arguments of `storage.fetch_folder`.

    Raises:
        DataError: If there is no folder and no archive, or the archive cannot be unpacked.
        StorageError: If it cannot be fetched.
    """
    uri = settings.data_root
    if is_archive(uri.rstrip("/")) and (storage.is_remote(uri) or Path(uri).is_file()):
        (scratch / "archive").mkdir()
        file = storage.fetch_file(uri.rstrip("/"), scratch / "archive")
        if file.parent != scratch / "archive":
            (scratch / "archive" / file.name).symlink_to(file.absolute())
        root = scratch / "archive"
    else:
        if not storage.is_remote(uri) and not Path(uri).is_dir():
            reason = "is no folder and no archive" if Path(uri).exists() else "does not exist"
            raise DataError(f"data.data_root {uri} {reason}")
        root = fetch(uri, scratch / FETCHED, wanted)
    archive = _only_archive(root)
    if archive is None or _is_shard(archive, settings.format):
        return root
    return unpack(archive, scratch / "unpacked" / archive.stem)


def _only_archive(root: Path) -> Path | None:
    """The archive that lies alone in a folder, but for a README and its like."""
    archives = []
    with os.scandir(root) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if not entry.is_file() or not (is_archive(entry.name) or Path(entry.name).suffix.lower() in BESIDE):
                return None
            archives += [root / entry.name] if is_archive(entry.name) else []
    return archives[0] if len(archives) == 1 else None


def _is_shard(archive: Path, layout: str) -> bool:
    if not archive.name.lower().endswith(TARS) or layout not in ("auto", "webdataset"):
        return False
    return layout == "webdataset" or holds_samples(archive)
