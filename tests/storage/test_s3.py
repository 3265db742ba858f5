"""What S3 refuses, in one line without a secret; which checksum of an object counts."""

import base64
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from natix_lib import storage
from natix_lib.errors import StorageError
from natix_lib.repeats import Away
from natix_lib.storage import s3
from natix_lib.storage.bucket import Object
from tests.simple_storage import Simple

REFUSALS = [
    (403, "AccessDenied", "access denied: the credentials may not do this there (AccessDenied)"),
    (403, "InvalidAccessKeyId", "the credentials are not accepted: the access key is not known there"),
    (403, "SignatureDoesNotMatch", "the secret key is not that of the access key"),
    (400, "ExpiredToken", "the credentials have expired (ExpiredToken)"),
    (404, "NoSuchBucket", "its bucket does not exist"),
    (403, "InvalidObjectState", "the object is archived: restore it first"),
    (418, "Teapot", "the service answers 418 (Teapot)"),
]


@pytest.mark.parametrize(("status", "code", "line"), REFUSALS)
def test_a_refusal_is_one_line_without_what_the_service_repeats(
    simple: Simple, status: int, code: str, line: str
) -> None:
    body = f"<Error><Code>{code}</Code><Message>AKIASECRET</Message><StringToSign>AKIASECRET</StringToSign></Error>"
    simple.failures, simple.status, simple.refusal = 9, status, body.encode()
    with pytest.raises(StorageError) as caught:
        storage.file_names("s3://street/set")
    assert line in str(caught.value) and str(caught.value).startswith("s3://street/set: ")
    assert "AKIASECRET" not in str(caught.value)


def test_a_bucket_elsewhere_names_its_region() -> None:
    about = {"HTTPStatusCode": 301, "HTTPHeaders": {"x-amz-bucket-region": "eu-west-1"}}
    refused = s3._refused("s3://street/a", {"Error": {"Code": "PermanentRedirect"}, "ResponseMetadata": about})
    assert str(refused) == "s3://street/a: its bucket is in another region: set AWS_DEFAULT_REGION=eu-west-1"


def test_without_credentials_the_line_says_what_to_set(
    simple: Simple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(s3, "open_client", s3.open_client.__wrapped__)
    with pytest.raises(StorageError, match="no credentials for s3://: set AWS_ACCESS_KEY_ID"):
        storage.file_names("s3://street/set")


def test_in_a_pod_credentials_are_waited_for_and_no_client_without_them_is_kept(
    simple: Simple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.setattr(s3, "open_client", lru_cache(s3.open_client.__wrapped__))
    monkeypatch.setattr(s3, "METADATA_SECONDS", 0.1)
    with pytest.raises(Away, match="no credentials for s3://"):
        storage.file_names("s3://street/set")
    assert "no credentials for s3://" in capsys.readouterr().err
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    assert storage.file_names("s3://street/set") == []
    s3.open_client(simple.url).close()


@pytest.mark.parametrize(
    ("answer", "checksum"),
    [
        ({"ChecksumSHA256": "A=", "ChecksumCRC32": "B="}, "SHA256 A="),
        ({"ChecksumCRC32": "B=-3"}, f"MD5 {'a' * 32}"),  # of parts
        ({"ChecksumCRC32": "B=", "ChecksumType": "COMPOSITE"}, f"MD5 {'a' * 32}"),
        ({"ChecksumCRC32": "B=", "ChecksumType": "FULL_OBJECT"}, "CRC32 B="),
        ({}, f"MD5 {'a' * 32}"),
        ({"ServerSideEncryption": "AES256"}, f"MD5 {'a' * 32}"),
        ({"ServerSideEncryption": "aws:kms"}, ""),
        ({"SSECustomerAlgorithm": "AES256"}, ""),
    ],
)
def test_the_best_checksum_of_a_whole_object_counts(answer: dict[str, str], checksum: str) -> None:
    assert s3._checksum(answer, "a" * 32) == checksum
    assert s3._checksum({}, f"{'a' * 32}-2") == ""


def test_checksums_are_those_of_the_catalogue_of_crc_algorithms(simple: Simple, tmp_path: Path) -> None:
    path = tmp_path / "check"
    path.write_bytes(b"123456789")
    bucket = s3.open_bucket("street", "s3://street/check")
    values = {
        "CRC32": zlib.crc32(b"123456789").to_bytes(4, "big"),
        "CRC32C": bytes.fromhex("e3069283"),
        "CRC64NVME": bytes.fromhex("ae8b14860a799888"),
    }
    if not s3._crt():
        values = {"CRC32": values["CRC32"]}
    for method, value in values.items():
        listed = Object("check", "", 9, f"{method} {base64.b64encode(value).decode()}", (), None)
        assert bucket.matches(listed, path)
    assert not bucket.matches(Object("check", "", 9, "", (), None), path)


def test_a_long_listing_goes_on_at_the_page_that_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    class Client:
        def list_objects_v2(self, ContinuationToken: str = "first", **options: str) -> dict[str, Any]:
            asked.append(ContinuationToken)
            if len(asked) == 2:
                busy = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
                raise ClientError(busy, "ListObjectsV2")
            more = {"IsTruncated": True, "NextContinuationToken": "second"} if ContinuationToken == "first" else {}
            return {"Contents": [{"Key": f"set/{ContinuationToken}", "Size": 1, "ETag": '"a"'}], **more}

    monkeypatch.setattr(s3, "open_client", lambda endpoint: Client())
    assert storage.file_names("s3://street/set") == ["first", "second"]
    assert asked == ["first", "second", "second"]
    assert capsys.readouterr().err == "s3://street/set: the service answers 503 (SlowDown); trying again\n"
