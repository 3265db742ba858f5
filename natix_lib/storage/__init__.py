"""Local paths and buckets behind the same few verbs: fetch, stage, fingerprint, write, list, remove, mirror, publish.

A verb takes an address and works on what it names: a path (`local.py`) or a bucket (`remote.py`). Of a kind of bucket
only the primitives of `bucket.Bucket` differ, and `gs.py` has those of Google Cloud Storage; each module is named as
its scheme and imported when an address of it is used. The schemes stand in `grammar.SCHEMES`.

A file or folder that was fetched is either whole or absent, and what was published is never a mixture of two
publishers' files.
"""

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path

from natix_lib import grammar
from natix_lib.errors import StorageError
from natix_lib.storage.bucket import Bucket, Staged, Wanted, everything, no_name
from natix_lib.storage.local import Local
from natix_lib.storage.remote import Remote


def is_remote(uri: str) -> bool:
    """Whether `uri` is the address of something in a bucket."""
    return grammar.scheme(uri) is not None


def fetch_file(uri: str, folder: str | Path) -> Path:
    """Fetch one object into `folder`.

    Returns:
        The file, named as the object; a local path is returned as it is.

    Raises:
        StorageError: If it does not exist or cannot be read.
    """
    return _at(uri).fetch_file(Path(folder))


def fetch_folder(uri: str, destination: str | Path, wanted: Wanted = everything) -> Path:
    """Fetch all objects below a prefix, in parallel.

    Args:
        uri: A bucket's prefix, or a local folder, which is returned as it is.
        destination: Folder that must not exist; absent again when anything fails.
        wanted: Whether an object is fetched, by its name below the prefix and its bytes; one that is not becomes an
            empty file.

    Raises:
        StorageError: If nothing is there, the objects' names are no files of one folder, they change while they are
            read and again when they are read once more, or a transfer fails.
    """
    return _at(uri).fetch_folder(Path(destination), wanted)


def staged(uri: str, place: str | Path, wanted: Wanted = everything) -> AbstractContextManager[Staged]:
    """Fetch all objects below a prefix for as long as a block runs, and keep their contents for the next time.

    A fetch that was stopped goes on where it was, and of one that is repeated only what has changed is sent; see
    `staging.py`. Several may read one address at once.

    Args:
        uri: A bucket's prefix, or a local folder, which is given as it is.
        place: Folder of what is kept of all addresses.
        wanted: As in `fetch_folder`; an object that is not wanted can be fetched later by `Staged.fetch`.

    Returns:
        What gives the block a folder, which must not be changed, with the objects as they were at one moment.

    Raises:
        StorageError: As `fetch_folder`, when the block is entered.
    """
    return _at(uri).staged(Path(place), wanted)


def remote_files(uri: str) -> list[tuple[str, Callable[[Path], None]]]:
    """What lies at a bucket's address: the object of this name, or else all objects below this prefix, by name.

    Returns:
        The address of each object, and a function that writes its content to a file, whole or not at all; it raises
        StorageError, and several may run at once.

    Raises:
        StorageError: If nothing is there, or the address is no bucket's.
    """
    place = _at(uri)
    if not isinstance(place, Remote):
        raise StorageError(f"{uri} is no address of a bucket")
    return place.files()


def fingerprint(uri: str, status_change: bool = True, left_out: Callable[[str], bool] = no_name) -> str:
    """A hash that changes when anything below `uri` does, from the listing alone; a cache key, not a content hash.

    Local: the path below `uri`, the size, and the times of modification and of status change in nanoseconds, of every
    file; links to files and folders are followed, one that leads nowhere counts as such, and a folder that is reached
    again counts by the name that it was first reached by. A file that was replaced by another of the same size and date
    is noticed, because no user can set the time of status change back; a copy of the folder has another fingerprint.
    In a bucket: the name and size of every object, and of the one object of this name, and the checksum of its content
    where the listing tells it (crc32c of Cloud Storage, an MD5 as S3's entity tag), else its state, such as that tag.
    So the same bytes written again have the same fingerprint, and other bytes of the same length have it once in 4
    billion times.

    Args:
        uri: A path, or the address of an object or prefix.
        status_change: Whether the time of status change counts for a local file. In a pod it says nothing of the file:
            of what its image holds it is when the image was unpacked on this node, of a volume when it was mounted
            last, if the pod has an fsGroup.
        left_out: Whether what has this name, a file or a folder with all below it, does not count.

    Raises:
        StorageError: If nothing is there.
    """
    return _at(uri).fingerprint(status_change, left_out)


def sizes(uri: str) -> dict[str, int]:
    """Bytes of every file below `uri`, by name, from the listing alone, or of the one file or object of this name.

    Links are followed, each folder once; one to nowhere has 0.

    Raises:
        StorageError: If nothing is there.
    """
    return _at(uri).sizes()


def write_file(uri: str, content: bytes) -> None:
    """Write one file, whole or not at all, over what is there.

    Raises:
        StorageError: If it cannot be written.
    """
    _at(uri).write_file(content)


def require_place(key: str, root: str) -> None:
    """Refuse a folder or a bucket's prefix that files cannot be kept below, before there is anything to lose.

    Args:
        key: The config key that names it.
        root: The folder, made if it is absent, or the prefix, which is only listed.

    Raises:
        StorageError: Naming the key, the place and why.
    """
    try:
        if is_remote(root):
            file_names(root)
        else:
            Path(root).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
    except (OSError, StorageError) as error:
        raise StorageError(f"{key} {root} cannot be written: {error}") from error


def file_names(uri: str) -> list[str]:
    """Names of the files directly in a folder, sorted; none when it does not exist."""
    return _at(uri).file_names()


def remove_file(uri: str) -> None:
    """Remove one file; it is no error when it is not there."""
    _at(uri).remove_file()


def mirror(path: str | Path, uri: str) -> None:
    """Put a file, or all files of a folder, below `uri` over what is there; what is there already is not sent again.

    For places that one run has to itself; see `publish_folder` for shared ones.

    Raises:
        StorageError: If a transfer fails.
    """
    _at(uri).mirror(Path(path))


def remove_folder(uri: str) -> None:
    """Remove all files below a folder or prefix; it is no error when there is none."""
    _at(uri).remove_folder()


def publish_folder(folder: str | Path, uri: str, manifest_name: str) -> str:
    """Publish a finished folder where nothing is yet; the manifest is the last to appear.

    Args:
        folder: Folder to publish, which holds `manifest_name`.
        uri: A bucket's prefix, or a local folder that must not exist.
        manifest_name: The file that makes the folder a whole artifact.

    Returns:
        Where the manifest is.

    Raises:
        StorageError: If the place is taken or a transfer fails.
    """
    _at(uri).publish_folder(Path(folder), manifest_name)
    return f"{uri.rstrip('/')}/{manifest_name}"


def _at(uri: str) -> Local | Remote:
    scheme = grammar.scheme(uri)
    if scheme is None:
        return Local(uri)
    try:
        bucket_name, name = grammar.bucket_and_name(uri)
    except ValueError as error:
        raise StorageError(f"a bucket address {error}, got {uri}") from error
    bucket: Bucket = import_module(f"{__name__}.{scheme}").open_bucket(bucket_name, uri)
    return Remote(uri, bucket, name)
