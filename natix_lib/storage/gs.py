"""Google Cloud Storage: `gs://` buckets by google-cloud-storage, which is imported when one is opened.

The client checks the crc32c of every transfer, and goes on with one where it was cut, if it is what repeats: so
`natix_lib.repeats` is handed to it as its way to do that. Its own `Retry` was rejected: its time runs from the start of
a request, so that a transfer which takes longer ends when it is cut once.
"""

import base64
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from natix_lib import repeats
from natix_lib.errors import StorageError
from natix_lib.repeats import Away
from natix_lib.storage.bucket import CONNECTIONS, Bucket, Damaged, Gone, Object

REQUEST_SECONDS = 60  # that one answer without content may take
TRANSFER_SECONDS = 300  # that one answer with content may take between two packets

FIELDS = "items(name,size,crc32c,generation),prefixes,nextPageToken"  # of a listing: a third of what is sent without

T = TypeVar("T")


class GsBucket:
    """A bucket of Google Cloud Storage; see `bucket.Bucket`."""

    def __init__(self, bucket_name: str, uri: str) -> None:
        self._uri = uri
        self._bucket = _client(os.environ.get("STORAGE_EMULATOR_HOST") or "").bucket(bucket_name)

    def find(self, name: str) -> Object | None:
        blob = _answer(self._uri, lambda: self._bucket.get_blob(name, timeout=REQUEST_SECONDS, retry=_retry(self._uri)))
        return blob and self._object(blob)

    def list(self, prefix: str, deep: bool = True) -> list[Object]:
        options: dict[str, Any] = {"prefix": prefix, "delimiter": None if deep else "/", "fields": FIELDS}
        options |= {"timeout": REQUEST_SECONDS, "retry": _retry(self._uri)}
        return [self._object(blob) for blob in _answer(self._uri, lambda: list(self._bucket.list_blobs(**options)))]

    def download(self, source: Object, path: Path) -> Object:
        options = _transfer_options(source.address, lambda: path.stat().st_size if path.exists() else 0)
        _answer(source.address, lambda: self._blob(source).download_to_filename(path, **options))
        return source

    def matches(self, listed: Object, path: Path) -> bool:
        return listed.checksum == f"crc32c {_crc32c(path)}"

    def write(self, name: str, content: bytes | Path, only_new: bool = False) -> Object | None:
        from google.api_core.exceptions import PreconditionFailed

        blob = self._bucket.blob(name)
        options = _transfer_options(self._uri) | ({"if_generation_match": 0} if only_new else {})

        def transfer() -> Object | None:
            try:
                if isinstance(content, bytes):
                    blob.upload_from_string(content, **options)
                else:
                    blob.upload_from_filename(str(content), **options)
            except PreconditionFailed:
                if only_new:
                    return None
                raise
            return self._object(blob)

        return _answer(self._uri, transfer)

    def remove(self, listed: Object) -> None:
        _answer(self._uri, lambda: self._blob(listed).delete(timeout=REQUEST_SECONDS, retry=_retry(self._uri)))

    def _blob(self, listed: Object) -> Any:
        """An object in the version that was listed, as the client knows it."""
        return self._bucket.blob(listed.name, generation=listed.handle)

    def _object(self, blob: Any) -> Object:
        """An object as it is now: a download changes the blob to what the answer's header says."""
        return Object(
            name=blob.name,
            address=f"gs://{self._bucket.name}/{blob.name}",
            size=blob.size or 0,
            checksum=f"crc32c {blob.crc32c}" if blob.crc32c else "",
            state=(blob.size, blob.crc32c, blob.generation),
            handle=blob.generation,  # a blob holds 3 kB, and a listing may have a million
        )


def open_bucket(bucket_name: str, uri: str) -> Bucket:
    """Open a bucket for what is done at `uri`.

    Raises:
        StorageError: If google-cloud-storage is not installed or has no credentials.
    """
    return GsBucket(bucket_name, uri)


@lru_cache(maxsize=4)
def _client(emulator: str) -> Any:
    """The client for Google's service, or of an emulator at this address; threads share it."""
    try:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage
        from requests.adapters import HTTPAdapter
    except ModuleNotFoundError as error:
        raise StorageError("gs:// addresses need google-cloud-storage: pip install 'natix[gcs]'") from error
    if emulator:
        client = storage.Client(project="emulated", credentials=AnonymousCredentials())
    else:
        client = repeats.google_credentials(storage.Client, "gs://")
    for scheme in ("https://", "http://"):  # the client's own keeps 10 connections and complains of every further one
        client._http.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    return client


def _retry(uri: str, received: Callable[[], int] = lambda: 0) -> Any:
    """How the client repeats a request: it takes any function that gives it a call for its own."""
    return lambda call: lambda: repeats.repeated(lambda: _passing(uri, call), received=received)


def _transfer_options(uri: str, received: Callable[[], int] = lambda: 0) -> dict[str, Any]:
    return {"checksum": "crc32c", "timeout": TRANSFER_SECONDS, "retry": _retry(uri, received)}


def _passing(uri: str, call: Callable[[], T]) -> T:
    """`call()`, with what may pass as `Away`; every verdict is left to the client, which waits for some."""
    from google.cloud.storage.exceptions import InvalidResponse

    try:
        return call()
    except Exception as error:
        if not repeats.google_passes(error):
            raise
        said = f"the service answers {error.response.status_code}" if isinstance(error, InvalidResponse) else error
        raise Away(f"{uri}: {said}") from error


def _answer(uri: str, call: Callable[[], T]) -> T:
    """`call()`, with every failure of the service as one line."""
    from google.api_core.exceptions import GoogleAPIError, NotFound
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        return _passing(uri, call)
    except NotFound as error:
        raise Gone(f"{uri} does not exist") from error
    except DataCorruption as error:
        raise Damaged(f"{uri} does not match the crc32c of its answer") from error
    except (GoogleAPIError, GoogleAuthError, RequestException, HTTPError) as error:
        raise StorageError(f"{uri}: {error}") from error
    except OSError as error:
        raise StorageError(f"{uri}: {error.strerror or error}") from error


def _crc32c(path: Path) -> str:
    import google_crc32c

    digest: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return base64.b64encode(digest.digest()).decode()
