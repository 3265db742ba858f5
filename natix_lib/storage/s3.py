"""Amazon S3 and the stores that speak its protocol, MinIO and others: `s3://` buckets by boto3, imported when opened.

boto3 finds the credentials, the region and the endpoint as it does for everyone: environment, `~/.aws`, a web identity
of the pod or the machine's role; AWS_ENDPOINT_URL names another store than Amazon's.

What was received is the object when its size is the listed one and it has the first of these that the service tells:

1. the checksum of the whole object that is stored with it, SHA-256, CRC-64/NVME, CRC-32C, CRC-32 or SHA-1;
2. the entity tag, where that is an MD5: it has 32 digits, and the object is not encrypted with a key of KMS or the
   caller's.

An object that was uploaded in parts has an entity tag that is no MD5, and often a checksum of checksums only: then the
size and the transport vouch for it. Recomputing such a tag from the sizes of the parts was rejected: one more request
an object, for what the present clients of the stores have made needless by (1).

An entity tag differs after every change of the content, so a read asks for the listed one (If-Match). A new object is
written on the condition that there is none (If-None-Match): with a store that ignores it, two publishers who begin at
once may both go on. Messages say the service's code and what to do, never its own text, which repeats keys.

boto3's own repeats are switched off: it counts them, five within a minute, says nothing of them, begins a transfer anew
that was cut, and takes no conflict of two writers for something that passes. `natix_lib.repeats` has them all.
"""

import base64
import hashlib
import os
import re
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from natix_lib.errors import StorageError
from natix_lib.files import sha256_bytes, sha256_file
from natix_lib.repeats import METADATA_SECONDS, PASSING, Away, in_cluster, repeated, trusted
from natix_lib.storage.bucket import CONNECTIONS, Bucket, Damaged, Gone, Object

CONNECT_SECONDS = 10
READ_SECONDS = 60  # that an answer may take between two packets
BLOCK = 1 << 20
MOST_AT_ONCE = 5 << 30  # bytes that S3 takes in one request

MD5 = re.compile(r"[0-9a-f]{32}")
WHOLE = ("SHA256", "CRC64NVME", "CRC32C", "CRC32", "SHA1")  # checksums of a whole object, the best first
REASONS = {
    "AccessDenied": "access denied: the credentials may not do this there",
    "AllAccessDisabled": "access denied: the bucket is disabled",
    "Forbidden": "access denied: the credentials may not do this there",
    "403": "access denied: the credentials may not do this there",
    "ExpiredToken": "the credentials have expired",
    "ExpiredTokenException": "the credentials have expired",
    "RequestExpired": "the credentials have expired",
    "TokenRefreshRequired": "the credentials have expired",
    "InvalidAccessKeyId": "the credentials are not accepted: the access key is not known there",
    "InvalidToken": "the credentials are not accepted: the session token is not valid",
    "SignatureDoesNotMatch": "the credentials are not accepted: the secret key is not that of the access key",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "InvalidObjectState": "the object is archived: restore it first",
    "NotImplemented": "the store cannot do this",
    "XAmzContentSHA256Mismatch": "it was damaged on its way",
    "BadDigest": "it was damaged on its way",
}
ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "400"}
BUSY = {"ConditionalRequestConflict", "RequestTimeout", "Throttling"}  # codes of what passes, whatever their status
ABSENT = {"NoSuchKey", "404", "NotFound", "NoSuchVersion"}

T = TypeVar("T")


class S3Bucket:
    """A bucket of S3; see `bucket.Bucket`."""

    def __init__(self, bucket_name: str, uri: str) -> None:
        self._uri = uri
        self._name = bucket_name
        self._client = open_client(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")

    def find(self, name: str) -> Object | None:
        try:
            answer = _asked(self._uri, lambda: self._client.head_object(**self._at(name), ChecksumMode="ENABLED"))
        except Gone:
            return None
        return self._object(name, answer["ContentLength"], answer)

    def list(self, prefix: str, deep: bool = True) -> list[Object]:
        options = {"Bucket": self._name, "Prefix": prefix} | ({} if deep else {"Delimiter": "/"})
        objects: list[Object] = []
        while True:  # page by page, because what is repeated should be one request
            page = _asked(self._uri, partial(self._client.list_objects_v2, **options))
            for entry in page.get("Contents", ()):
                objects.append(self._object(entry["Key"], entry["Size"], {"ETag": entry["ETag"]}))
            if not page.get("IsTruncated"):
                return objects
            options["ContinuationToken"] = page["NextContinuationToken"]

    def download(self, source: Object, path: Path) -> Object:
        with path.open("wb") as file:
            known = self._receive(source, file)
        return known

    def matches(self, listed: Object, path: Path) -> bool:
        method, _, value = listed.checksum.partition(" ")
        return path.stat().st_size == listed.size and bool(method) and value == _digest(method, path)

    def write(self, name: str, content: bytes | Path, only_new: bool = False) -> Object | None:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if size > MOST_AT_ONCE:
            raise StorageError(f"{self._uri}: {content!r} has more than the 5 GiB that S3 takes in one request")
        sha256 = sha256_bytes(content) if isinstance(content, bytes) else sha256_file(content)
        sha256 = base64.b64encode(bytes.fromhex(sha256)).decode()
        options = {"ChecksumSHA256": sha256} | ({"IfNoneMatch": "*"} if only_new else {})

        def put() -> Any:
            if isinstance(content, bytes):
                return self._client.put_object(**self._at(name), Body=content, **options)
            with content.open("rb") as file:
                return self._client.put_object(**self._at(name), Body=file, **options)

        try:
            answer = _asked(self._uri, put)
        except Gone:
            if only_new:
                return None
            raise
        return self._object(name, size, {"ETag": answer["ETag"], "ChecksumSHA256": sha256})

    def remove(self, listed: Object) -> None:
        _asked(self._uri, lambda: self._client.delete_object(**self._at(listed.name), IfMatch=listed.handle))

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._name, "Key": name}

    def _object(self, name: str, size: int, answer: dict[str, Any]) -> Object:
        """An object as a listing, or the answer to a request for it, tells of it."""
        tag = answer["ETag"]
        address = f"s3://{self._name}/{name}"
        return Object(name, address, size, _checksum(answer, tag.strip('"')), (size, tag.strip('"')), tag)

    def _receive(self, source: Object, file: Any) -> Object:
        """Write an object's content to an open file; a connection that is cut goes on behind what has come."""
        known: Object | None = None

        def receive_rest() -> Object:
            nonlocal known
            if known and file.tell() >= source.size:
                return known
            rest = {"Range": f"bytes={file.tell()}-"} if file.tell() else {"ChecksumMode": "ENABLED"}
            answer = self._client.get_object(**self._at(source.name), IfMatch=source.handle, **rest)
            known = known or self._object(source.name, source.size, answer)
            with closing(answer["Body"]) as body:
                while block := body.read(BLOCK):
                    file.write(block)
            return known

        return _asked(source.address, receive_rest, file.tell)


def open_bucket(bucket_name: str, uri: str) -> Bucket:
    """Open a bucket for what is done at `uri`.

    Raises:
        StorageError: If boto3 is not installed or has no credentials, or the endpoint is no address.
    """
    return S3Bucket(bucket_name, uri)


@lru_cache(maxsize=4)
def open_client(endpoint: str) -> Any:
    """The client of an endpoint, "" for Amazon's; threads share it."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, CredentialRetrievalError, MetadataRetrievalError
    except ModuleNotFoundError as error:
        raise StorageError("s3:// addresses need boto3: pip install 'natix[s3]'") from error
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        retries={"total_max_attempts": 1, "mode": "standard"},
        user_agent_extra="natix",
    )

    def opened() -> Any:
        """The client; one without credentials would never look for them again."""
        try:
            session = boto3.session.Session()
            credentials = session.get_credentials()
            if credentials:
                return session.client("s3", config=config)
        except (CredentialRetrievalError, MetadataRetrievalError) as error:
            raise Away(f"no credentials for s3://: {error}") from error
        except (BotoCoreError, ValueError) as error:
            raise StorageError(f"s3:// cannot be used{f' at {endpoint}' if endpoint else ''}: {error}") from error
        raise (Away if in_cluster() else StorageError)(  # what gives a pod its role may begin after it
            "no credentials for s3://: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the "
            "machine or pod a role"
        )

    return repeated(opened, METADATA_SECONDS)


def _asked(uri: str, call: Callable[[], T], received: Callable[[], int] = lambda: 0) -> T:
    """`call()`, repeated while its error may pass, with every failure of the service as one line."""
    return repeated(lambda: _once(uri, call), received=received)


def _once(uri: str, call: Callable[[], T]) -> T:
    from botocore import exceptions

    try:
        return call()
    except exceptions.ClientError as error:
        raise _refused(uri, error.response) from error
    except exceptions.FlexibleChecksumError as error:
        raise Damaged(f"{uri} does not match the checksum of its answer") from error
    except (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.CredentialRetrievalError,
        exceptions.MetadataRetrievalError,
    ) as error:
        raise (Away if trusted(error) else StorageError)(f"{uri}: {error}") from error
    except exceptions.BotoCoreError as error:
        raise StorageError(f"{uri}: {error}") from error


def _refused(uri: str, answer: dict[str, Any]) -> StorageError:
    code = str(answer.get("Error", {}).get("Code", ""))
    about = answer.get("ResponseMetadata", {})
    status, headers = about.get("HTTPStatusCode"), about.get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or answer.get("Error", {}).get("Region")
    if code == "NoSuchBucket":
        return StorageError(f"{uri}: its bucket does not exist")
    if code in ABSENT:
        return Gone(f"{uri} does not exist")
    if status == 412:
        return Gone(f"{uri} was replaced")
    if code in ELSEWHERE and (region or status == 301):
        return StorageError(f"{uri}: its bucket is in another region: set AWS_DEFAULT_REGION={region or '...'}")
    reason = REASONS.get(code) or f"the service answers {status}"
    kind = Away if status in PASSING or code in BUSY else StorageError
    return kind(f"{uri}: {reason}" + (f" ({code})" if code and code != str(status) else ""))


def _checksum(answer: dict[str, Any], tag: str) -> str:
    """The best checksum of a whole object's content, with its method; "" when an answer tells none."""
    if answer.get("ChecksumType") != "COMPOSITE":
        for method in WHOLE:
            value = answer.get(f"Checksum{method}", "")
            if value and "-" not in value and (method in ("SHA256", "CRC32", "SHA1") or _crt()):
                return f"{method} {value}"
    encrypted = "SSECustomerAlgorithm" in answer or "kms" in answer.get("ServerSideEncryption", "")
    return f"MD5 {tag}" if MD5.fullmatch(tag) and not encrypted else ""


def _crt() -> Any:
    """Amazon's C checksums; None where they are not installed."""
    try:
        from awscrt import checksums
    except ModuleNotFoundError:
        return None
    return checksums


def _digest(method: str, path: Path) -> str:
    """A checksum as the service writes it: an MD5 in hex digits, all else in base64."""
    with path.open("rb") as file:
        if method == "MD5":
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if method in ("SHA256", "SHA1"):
            return base64.b64encode(hashlib.file_digest(file, method.lower()).digest()).decode()
        update: Callable[[bytes, int], int] = zlib.crc32 if method == "CRC32" else getattr(_crt(), method.lower())
        value = 0
        while block := file.read(BLOCK):
            value = update(block, value)
    return base64.b64encode(value.to_bytes(8 if method == "CRC64NVME" else 4, "big")).decode()
