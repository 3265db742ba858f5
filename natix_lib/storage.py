"""Local paths and `gs://` behind a few functions: stage, fingerprint, publish.

Every object's crc32c is checked after its transfer, transient errors are retried by google-cloud-storage, and a file
or folder that was fetched is either whole or absent.

Publishing must never leave a mixture of two publishers' files. The publisher first claims the place: it creates
`<uri>/.publishing` on the condition that it does not exist, which one of two can do; it then uploads the files, and
the manifest last, each on the condition that none is there. A publisher that was killed leaves a claim and no
manifest, so nothing there can be taken for a bundle, and the next publisher is told. Folders named by content hash
were rejected: a consumer wants the address that the config names.
"""

import base64
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from natix_lib import grammar
from natix_lib.errors import StorageError
from natix_lib.files import canonical_json, sha256_bytes, write_bytes

SCHEME = grammar.SCHEME
CLAIM = ".publishing"
THREADS = 16  # transfers at once; a few saturate a pod's network
DEADLINE = 120.0  # seconds that one request may be retried for

T = TypeVar("T")


def is_remote(uri: str) -> bool:
    """Whether `uri` is a `gs://` address."""
    return uri.startswith(SCHEME)


def fetch_file(uri: str, folder: str | Path) -> Path:
    """Fetch one object into `folder`.

    Returns:
        The file, named as the object; a local path is returned as it is.

    Raises:
        StorageError: If it does not exist or cannot be read.
    """
    if not is_remote(uri):
        path = _local(uri)
        if not path.is_file():
            raise StorageError(f"{uri} is no file" if path.exists() else f"file {uri} does not exist")
        return path
    bucket, name = _bucket_and_name(uri)
    blob = _answer(uri, lambda: bucket.get_blob(name, timeout=60, retry=_retry()))
    if blob is None:
        raise StorageError(f"{uri} does not exist")
    target = Path(folder) / PurePosixPath(name).name
    _download(blob, target)
    return target


def fetch_folder(uri: str, destination: str | Path) -> Path:
    """Fetch all objects below a prefix, in parallel.

    Args:
        uri: `gs://bucket/prefix`, or a local folder, which is returned as it is.
        destination: Folder that must not exist; absent again when anything fails.

    Raises:
        StorageError: If nothing is there, the objects' names are no files of one folder, or a transfer fails.
    """
    if not is_remote(uri):
        path = _local(uri)
        if not path.is_dir():
            raise StorageError(f"{uri} is no folder" if path.exists() else f"folder {uri} does not exist")
        return path
    target = Path(destination)
    blobs = _list(uri)
    partial = _temporary(target)
    try:
        _make_folder(partial)
        same = str.casefold if partial.with_name(partial.name.swapcase()).exists() else str  # macOS, Windows
        _all(_in_folder(uri, partial, blobs, same), lambda item: _download(item[1], item[0]))
        _rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def fingerprint(uri: str) -> str:
    """A hash that changes when anything below `uri` does, from the listing alone; a cache key, not a content hash.

    Local: the path below `uri`, the size, and the times of modification and of status change in nanoseconds, of every
    file; links to files and folders are followed, and one that leads nowhere counts as such. A file that was replaced
    by another of the same size and date is noticed, because no user can set the time of status change back; a copy
    of the folder has another fingerprint. `gs://`: name, size, crc32c and generation.

    Raises:
        StorageError: If nothing is there.
    """
    if is_remote(uri):
        facts = [[blob.name, blob.size, blob.crc32c, blob.generation] for blob in _list(uri)]
        return sha256_bytes(canonical_json(facts))
    root = Path(uri)
    if not root.exists():
        raise StorageError(f"{uri} does not exist")
    digest = hashlib.sha256()
    for name, path in [("", root)] if root.is_file() else _files_through_links(root):
        try:
            status = path.stat()
            state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        except OSError:
            state = "leads nowhere"
        digest.update(os.fsencode(name) + b"\0" + state.encode() + b"\n")  # no name holds a zero byte
    return digest.hexdigest()


def _files_through_links(root: Path) -> list[tuple[str, Path]]:
    """Names below `root`, sorted, and paths of all files; a folder that is reached from inside itself is not entered.

    A folder is known by its device and inode, so that a link to a folder above it ends the way down. One that two
    links reach is listed below both, as a reader sees it.
    """
    files = []

    def enter(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            files.append((prefix, folder / ".unreadable"))
            return
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        for entry in entries:
            try:
                is_folder = entry.is_dir()
            except OSError:  # links in a circle
                is_folder = False
            if is_folder:
                enter(folder / entry.name, f"{prefix}{entry.name}/", above | {here})
            else:
                files.append((prefix + entry.name, folder / entry.name))

    enter(root, "", frozenset())
    return files


def write_file(uri: str, content: bytes) -> None:
    """Write one file, whole or not at all, over what is there.

    Raises:
        StorageError: If it cannot be written.
    """
    if not is_remote(uri):
        with _one_line(uri):
            write_bytes(_local(uri), content)
        return
    bucket, name = _bucket_and_name(uri)
    blob = bucket.blob(name)
    _answer(uri, lambda: blob.upload_from_string(content, checksum="crc32c", timeout=300, retry=_retry()))


def file_names(uri: str) -> list[str]:
    """Names of the files directly in a folder, sorted; none when it does not exist."""
    if not is_remote(uri):
        folder = _local(uri)
        with _one_line(uri):
            return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    bucket, name = _bucket_and_name(uri)
    prefix = name.rstrip("/") + "/"
    blobs = _answer(uri, lambda: list(bucket.list_blobs(prefix=prefix, delimiter="/", retry=_retry())))
    return sorted(blob.name.removeprefix(prefix) for blob in blobs if blob.name != prefix)


def remove_file(uri: str) -> None:
    """Remove one file; it is no error when it is not there."""
    if not is_remote(uri):
        with _one_line(uri):
            _local(uri).unlink(missing_ok=True)
        return
    bucket, name = _bucket_and_name(uri)
    if blob := _answer(uri, lambda: bucket.get_blob(name, timeout=60, retry=_retry())):
        _answer(uri, lambda: blob.delete(timeout=60, retry=_retry()))


def mirror(path: str | Path, uri: str) -> None:
    """Put a file, or all files of a folder, below `uri` over what is there; what is there already is not sent again.

    For places that one run has to itself; see `publish_folder` for shared ones.

    Raises:
        StorageError: If a transfer fails.
    """
    root, prefix = Path(path), uri.rstrip("/")
    files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
    bucket, name = _bucket_and_name(prefix)

    def send(file: Path) -> None:
        place = name if file == root else f"{name}/{file.relative_to(root).as_posix()}"
        blob = _answer(uri, lambda: bucket.get_blob(place, timeout=60, retry=_retry()))
        if blob is None or blob.crc32c != _crc32c(file):
            options: dict[str, Any] = {"checksum": "crc32c", "timeout": 300, "retry": _retry()}
            _answer(uri, lambda: bucket.blob(place).upload_from_filename(str(file), **options))

    _all(files, send)


def remove_folder(uri: str) -> None:
    """Remove all objects below a prefix; it is no error when there is none."""
    bucket, name = _bucket_and_name(uri)
    prefix = name.rstrip("/") + "/"
    blobs = _answer(uri, lambda: list(bucket.list_blobs(prefix=prefix, retry=_retry())))
    _all(blobs, lambda blob: _answer(uri, lambda: blob.delete(timeout=60, retry=_retry())))


def publish_folder(folder: str | Path, uri: str, manifest_name: str) -> str:
    """Publish a finished folder where nothing is yet; the manifest is the last to appear.

    Args:
        folder: Holds `manifest_name`.
        uri: `gs://bucket/prefix` or a local folder that must not exist.
        manifest_name: The file that makes the folder a whole artifact.

    Returns:
        Where the manifest is.

    Raises:
        StorageError: If the place is taken or a transfer fails.
    """
    root = Path(folder)
    place = f"{uri.rstrip('/')}/{manifest_name}"
    if not is_remote(uri):
        target = _local(uri)
        if target.exists():
            raise StorageError(f"cannot publish to {uri}: it exists already, name another place")
        partial = _temporary(target)
        try:
            shutil.copytree(root, partial)
            _rename(partial, target)
        except OSError as error:
            raise StorageError(f"cannot publish to {uri}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return place
    bucket, prefix = _bucket_and_name(uri)
    prefix = prefix.rstrip("/")
    claim = bucket.blob(f"{prefix}/{CLAIM}")
    taken = f"cannot publish to {uri}: another run is publishing there, or was stopped while it did ({CLAIM})"
    _upload(uri, claim, b"", taken)
    if _answer(uri, lambda: bucket.get_blob(f"{prefix}/{manifest_name}", timeout=60, retry=_retry())):
        _answer(uri, lambda: claim.delete(timeout=60, retry=_retry()))
        raise StorageError(f"cannot publish to {uri}: it already holds {manifest_name}, name another place")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    names = [f"{prefix}/{path.relative_to(root).as_posix()}" for path in files]
    rest = [(path, name) for path, name in zip(files, names, strict=True) if path != root / manifest_name]
    _all(rest, lambda item: _upload(uri, bucket.blob(item[1]), item[0], taken))
    _upload(uri, bucket.blob(f"{prefix}/{manifest_name}"), root / manifest_name, taken)
    _answer(uri, lambda: claim.delete(timeout=60, retry=_retry()))
    return place


def _client() -> Any:
    try:
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud import storage
    except ModuleNotFoundError as error:
        raise StorageError("gs:// addresses need google-cloud-storage: pip install 'natix[gcs]'") from error
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client(project="emulated", credentials=AnonymousCredentials())
    try:
        return storage.Client()
    except (DefaultCredentialsError, OSError) as error:
        raise StorageError(f"no credentials for gs://: {error}") from error


def _retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(DEADLINE)


def _bucket_and_name(uri: str) -> tuple[Any, str]:
    try:
        bucket, name = grammar.bucket_and_name(uri)
    except ValueError as error:
        raise StorageError(f"a bucket address {error}, got {uri}") from error
    return _client().bucket(bucket), name


def _local(uri: str) -> Path:
    try:
        if not uri:
            raise ValueError("must name a file or folder")
        path = Path(grammar.place(uri))
    except ValueError as error:
        raise StorageError(f"a path {error}, got {uri!r}") from error
    with _one_line(uri):
        path.exists()  # fails for a name that is too long and for a folder that may not be entered
    return path


def _temporary(target: Path) -> Path:
    """A name beside `target`, short: the target's may have all the 255 bytes that a name can have."""
    return target.with_name(f".{uuid.uuid4().hex[:12]}.part")


@contextmanager
def _one_line(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{uri}: {error.strerror or error}") from error


def _make_folder(folder: Path) -> None:
    with _one_line(str(folder.parent)):
        folder.mkdir(parents=True)


def _answer(uri: str, call: Callable[[], T]) -> T:
    """`call()`, with every failure of the service as one line."""
    from google.api_core.exceptions import GoogleAPIError, NotFound, RetryError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        return call()
    except NotFound as error:
        raise StorageError(f"{uri} does not exist") from error
    except (RetryError, GoogleAPIError, GoogleAuthError, RequestException) as error:
        raise StorageError(f"{uri}: {error}") from error
    except OSError as error:
        raise StorageError(f"{uri}: {error.strerror or error}") from error


def _list(uri: str) -> list[Any]:
    bucket, name = _bucket_and_name(uri)
    prefix = name.rstrip("/") + "/"

    def listing() -> list[Any]:
        return [blob for blob in bucket.list_blobs(prefix=prefix, retry=_retry()) if not blob.name.endswith("/")]

    blobs = _answer(uri, listing)
    if not blobs:
        raise StorageError(f"{uri} holds no object")
    return sorted(blobs, key=lambda blob: str(blob.name))


def _in_folder(uri: str, folder: Path, blobs: list[Any], same: Callable[[str], str] = str) -> list[tuple[Path, Any]]:
    """Local paths of objects, all different and none a folder of another.

    Args:
        uri: The prefix.
        folder: Where they go.
        blobs: The objects.
        same: Gives equal texts for names that the disk takes for one; `str.casefold` where case does not count.

    Raises:
        StorageError: If a name leaves the folder, cannot be a file's, or two names would be one file: an object
            store keeps `x//y`, `x/./y` and `x/y` apart, and has `x` beside `x/y`.
    """
    prefix = uri.removeprefix(SCHEME).partition("/")[2].rstrip("/") + "/"
    pairs = []
    names: dict[PurePosixPath, str] = {}
    for blob in blobs:
        relative = PurePosixPath(blob.name.removeprefix(prefix))
        if relative.is_absolute() or ".." in relative.parts:
            raise StorageError(f"{uri}: object {blob.name!r} has a name that leaves the folder")
        if grammar.CONTROL.search(blob.name) or not relative.parts:
            raise StorageError(f"{uri}: object {blob.name!r} has a name that no file should have: rename it")
        place = PurePosixPath(same(relative.as_posix()))
        if place in names:
            raise StorageError(f"{uri}: objects {names[place]!r} and {blob.name!r} would be one file: rename one")
        names[place] = blob.name
        pairs.append((folder / relative, blob))
    for place, name in names.items():
        if inside := next((parent for parent in place.parents if parent in names), None):
            raise StorageError(
                f"{uri}: object {names[inside]!r} would be a file and, for {name!r}, a folder: rename one"
            )
    return pairs


def _all(items: Iterable[T], work: Callable[[T], None]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(work, items):
            pass


def _download(blob: Any, target: Path) -> None:
    """Download one object to `target`, crc32c checked, whole or not at all."""
    from google.cloud.storage.exceptions import DataCorruption

    name = f"{SCHEME}{blob.bucket.name}/{blob.name}"
    part = _temporary(target)
    listed = blob.crc32c  # before the download, which takes over what the answer's header says

    def transfer() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            blob.download_to_filename(part, checksum="crc32c", timeout=300, retry=_retry())
        except DataCorruption as error:
            raise StorageError(f"{name} does not match the crc32c of its answer") from error
        _check_crc32c(name, listed, part)
        part.replace(target)

    try:
        _answer(name, transfer)
    finally:
        part.unlink(missing_ok=True)


def _check_crc32c(name: str, expected: str | None, path: Path) -> None:
    """Compare with the listing: the download's own check trusts a header that a proxy may drop."""
    if _crc32c(path) != expected:
        raise StorageError(f"{name} does not match its crc32c {expected}")


def _crc32c(path: Path) -> str:
    import google_crc32c

    digest: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return base64.b64encode(digest.digest()).decode()


def _upload(uri: str, blob: Any, content: bytes | Path, taken: str) -> None:
    """Upload where no object is yet; `taken` is said when one is."""
    from google.api_core.exceptions import PreconditionFailed

    options: dict[str, Any] = {
        "if_generation_match": 0,
        "checksum": "crc32c",
        "timeout": 300,
        "retry": _retry(),
    }

    def transfer() -> None:
        try:
            if isinstance(content, bytes):
                blob.upload_from_string(content, **options)
            else:
                blob.upload_from_filename(str(content), **options)
        except PreconditionFailed as error:
            raise StorageError(taken) from error

    _answer(uri, transfer)


def _rename(partial: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(partial, target)  # noqa: PTH104 - Path.rename would do the same; an existing folder raises
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
