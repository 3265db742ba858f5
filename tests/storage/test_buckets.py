"""What can go wrong in Cloud Storage and on the way to it; names that a bucket can hold and a folder cannot."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from urllib3.exceptions import ProtocolError

from natix_lib import repeats, secrets, storage
from natix_lib.errors import StorageError
from natix_lib.repeats import Away
from natix_lib.storage import gs, remote
from natix_lib.storage.bucket import THREADS, Gone
from tests.cloud_storage import Cloud
from tests.front import Store
from tests.loopback import Handler, self_signed, serving
from tests.simple_storage import Simple
from tests.storage.places import bundle, contents

PUBLISH = "import sys; from natix_lib import storage; storage.publish_folder(*sys.argv[1:], 'bundle.json')"


def test_an_object_that_stands_for_a_folder_is_no_file(cloud: Cloud, tmp_path: Path) -> None:
    cloud.put({"set/a": b"1", "set/": b"", "set/deep/": b""})
    assert contents(storage.fetch_folder("gs://street/set", tmp_path / "set")) == {"a": b"1"}
    assert storage.file_names("gs://street/set") == ["a"]
    storage.remove_folder("gs://street/set")
    assert not list(cloud.bucket.list_blobs())


def test_what_another_has_removed_meanwhile_is_removed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.put({"set/a": b"1", "set/b": b"2", "file": b"3"})
    remove = gs.GsBucket.remove
    monkeypatch.setattr(gs.GsBucket, "remove", lambda *listed: (remove(*listed), remove(*listed)))
    storage.remove_file("gs://street/file")
    storage.remove_folder("gs://street/set")
    assert not list(cloud.bucket.list_blobs())


@pytest.mark.parametrize(
    ("hash_passed_on", "message"),
    [
        (False, r"gs://street/set/bad does not match its crc32c \S{8}$"),  # a proxy dropped the header
        (True, r"gs://street/set/bad does not match the crc32c of its answer$"),
    ],
)
def test_a_corrupt_transfer_leaves_nothing(cloud: Cloud, tmp_path: Path, hash_passed_on: bool, message: str) -> None:
    cloud.put({"set/good": b"good", "set/bad": b"bad"})

    def damage(path: str, content: bytes, headers: dict[str, str]) -> bytes:
        if content != b"bad":
            return content
        if not hash_passed_on:
            del headers["X-Goog-Hash"]
        return b"bat"

    cloud.edit = damage
    attempts: tuple[Callable[[], Path], ...] = (
        lambda: storage.fetch_folder("gs://street/set", tmp_path / "set"),
        lambda: storage.fetch_file("gs://street/set/bad", tmp_path / "folder"),
    )
    for attempt in attempts:
        with pytest.raises(StorageError, match=message):
            attempt()
    assert not contents(tmp_path) and not (tmp_path / "set").exists()


@pytest.mark.parametrize("hash_passed_on", [True, False])
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_what_was_damaged_once_on_its_way_is_received_again(
    request: pytest.FixtureRequest, scheme: str, hash_passed_on: bool, tmp_path: Path
) -> None:
    store: Cloud | Simple = request.getfixturevalue("cloud" if scheme == "gs" else "simple")
    store.put({"set/a": b"a" * 40})
    damaged: list[str] = []

    def damage(path: str, content: bytes, headers: dict[str, str]) -> bytes:
        if content != b"a" * 40 or damaged:
            return content
        damaged.append(path)
        if not hash_passed_on:
            for name in [name for name in headers if name.lower().startswith(("x-goog-hash", "x-amz-checksum"))]:
                del headers[name]
        return b"b" * 40

    store.edit = damage
    assert storage.fetch_file(f"{scheme}://street/set/a", tmp_path).read_bytes() == b"a" * 40
    assert damaged


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_transfer_that_takes_longer_than_a_request_is_repeated_for_goes_on_where_it_was_cut(
    request: pytest.FixtureRequest, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "ELSEWHERE", 0.1)
    store: Cloud | Simple = request.getfixturevalue("cloud" if scheme == "gs" else "simple")
    store.put({"set/a": bytes(100_000)})
    store.seconds, store.cuts = 0.15, 2
    assert storage.fetch_file(f"{scheme}://street/set/a", tmp_path).read_bytes() == bytes(100_000)
    assert store.cuts == 0


@pytest.mark.parametrize("error", [ProtocolError("cut"), ConnectionResetError(104, "reset"), TimeoutError("late")])
def test_what_no_client_has_wrapped_may_pass_too(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(Away, match="^gs://street/a: "):
        gs._answer("gs://street/a", fail)


def test_a_certificate_that_does_not_verify_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(Handler, self_signed(tmp_path)) as url:
        for name in ("STORAGE_EMULATOR_HOST", "AWS_ENDPOINT_URL", "SECRET_MANAGER_EMULATOR_HOST"):
            monkeypatch.setenv(name, url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        asked: tuple[Callable[[], object], ...] = (
            lambda: storage.file_names("gs://street/set"),
            lambda: storage.file_names("s3://street/set"),
            lambda: secrets.read("projects/street/secrets/a"),
        )
        for ask in asked:
            with pytest.raises(StorageError, match="CERTIFICATE_VERIFY_FAILED") as caught:
                ask()
            assert type(caught.value) is StorageError
    assert not capsys.readouterr().err


def test_a_passing_503_is_retried(cloud: Cloud, tmp_path: Path) -> None:
    cloud.put({"set/a": b"content"})
    cloud.failures = 2
    assert contents(storage.fetch_folder("gs://street/set", tmp_path / "set")) == {"a": b"content"}
    assert cloud.failures == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_store_that_is_away_for_longer_is_said_each_time_and_then_an_error(
    request: pytest.FixtureRequest,
    scheme: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store: Store = request.getfixturevalue("cloud" if scheme == "gs" else "simple")
    monkeypatch.setattr(repeats, "ELSEWHERE", 0.3)
    uri = f"{scheme}://street/set"
    verbs: tuple[Callable[[], object], ...] = (
        lambda: storage.write_file(f"{uri}/a", b"a"),
        lambda: storage.file_names(uri),
        lambda: storage.fetch_file(f"{uri}/a", tmp_path),
        lambda: storage.remove_file(f"{uri}/a"),
    )
    for verb in verbs:
        store.failures = 10**9
        with pytest.raises(Away, match=f"^{uri}"):
            verb()
        said = capsys.readouterr().err.splitlines()
        assert len(said) >= 3 and all(uri in line and line.endswith("; trying again") for line in said)
        store.failures = 2
        with contextlib.suppress(Gone):
            verb()
        assert store.failures == 0 and len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_host_that_does_not_answer_may_come_back(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "ELSEWHERE", 0.1)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(Away, match=f"^{scheme}://street/set: "):
        storage.file_names(f"{scheme}://street/set")


def test_the_client_keeps_a_connection_for_each_of_its_threads(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Handler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(0.3)  # so that each has a connection of its own
            self.answer_json({"items": []})

    with serving(Slow) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        bucket = gs.open_bucket("street", "gs://street/set")
        with ThreadPoolExecutor(THREADS) as pool:
            assert list(pool.map(lambda _: bucket.list("set/"), range(THREADS))) == [[]] * THREADS
        gs._client(url)._http.close()
    assert not [record for record in caplog.records if "pool is full" in record.getMessage()]


def test_when_one_transfer_ends_in_a_verdict_none_waits_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "FIRST", 30.0)
    monkeypatch.setattr(repeats, "ELSEWHERE", 60.0)
    began, waiting = time.monotonic(), threading.Barrier(3)

    def work(number: int) -> None:
        waiting.wait(20)
        if number == 2:
            time.sleep(0.1)
            raise StorageError("no rights")
        repeats.repeated(fail)

    def fail() -> None:
        raise Away("away")

    with pytest.raises(StorageError):
        remote._all(range(3), work)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("in_pod", [True, False])
def test_credentials_that_are_not_there_yet_are_waited_for_in_a_pod_alone(
    in_pod: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(repeats, "METADATA_SECONDS", 0.1)
    monkeypatch.setattr(gs, "_client", gs._client.__wrapped__)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("CLOUD_ML_PROJECT_ID", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1" if in_pod else "")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with pytest.raises(StorageError, match="no credentials for gs://"):
        storage.file_names("gs://street/set")
    assert ("trying again" in capsys.readouterr().err) == in_pod
    monkeypatch.delenv("SECRET_MANAGER_EMULATOR_HOST", raising=False)
    with pytest.raises(StorageError, match="no credentials for Secret Manager"):
        secrets.read("projects/street/secrets/a")
    assert ("trying again" in capsys.readouterr().err) == in_pod


def test_two_who_write_one_name_of_s3_at_once_are_no_error(simple: Simple) -> None:
    simple.failures, simple.status = 2, 409
    simple.refusal = b"<Error><Code>ConditionalRequestConflict</Code></Error>"
    storage.write_file("s3://street/set/a", b"a")
    assert simple.failures == 0 and simple.contents() == {"set/a": b"a"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [".publishing", "model.onnx", "bundle.json", "DELETE"])
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_publisher_whose_request_is_done_and_not_answered_has_published(
    request: pytest.FixtureRequest, scheme: str, name: str, tmp_path: Path
) -> None:
    store: Cloud | Simple = request.getfixturevalue("cloud" if scheme == "gs" else "simple")
    lost: list[str] = []

    def lose(method: str, path: str, body: bytes) -> bool:
        writes = method in ("PUT", "POST") and (path.endswith(f"/{name}") or f'"models/v2/{name}"'.encode() in body)
        if lost or not (writes or method == name):
            return False
        lost.append(path)
        return True

    store.lost = lose
    publish = bundle(tmp_path / "b", "first")
    storage.publish_folder(publish, f"{scheme}://street/models/v2", "bundle.json")
    fetched = contents(storage.fetch_folder(f"{scheme}://street/models/v2", tmp_path / "fetched"))
    assert lost and fetched == contents(publish)


def test_a_publisher_that_was_killed_leaves_no_manifest_and_stops_the_next(cloud: Cloud, tmp_path: Path) -> None:
    cloud.held_up = "models/v2/model.onnx"
    publish = [sys.executable, "-c", PUBLISH, str(bundle(tmp_path / "b", "first")), "gs://street/models/v2"]
    with subprocess.Popen(publish) as publisher:
        assert cloud.waiting.wait(60)
        publisher.kill()
    cloud.released.set()
    assert cloud.holds("models/v2/.publishing") and not cloud.holds("models/v2/bundle.json")
    with pytest.raises(StorageError, match="another run is publishing there, or was stopped"):
        storage.publish_folder(bundle(tmp_path / "c", "second"), "gs://street/models/v2", "bundle.json")
    assert not cloud.holds("models/v2/bundle.json")


def test_a_claim_is_taken_back_where_a_bundle_is_already(cloud: Cloud, tmp_path: Path) -> None:
    cloud.put({"models/v1/bundle.json": b"{}"})
    with pytest.raises(StorageError, match="already holds bundle.json"):
        storage.publish_folder(bundle(tmp_path / "b", "first"), "gs://street/models/v1", "bundle.json")
    assert [blob.name for blob in cloud.bucket.list_blobs()] == ["models/v1/bundle.json"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x/y", "x//y"], "objects 'set/x//y' and 'set/x/y' would be one file: rename one"),
        (["x/./y", "x/y"], "objects 'set/x/./y' and 'set/x/y' would be one file"),
        (["/x", "x"], "object 'set//x' has a name that leaves the folder"),
        (["x", "x/y/z"], "object 'set/x' would be a file and, for 'set/x/y/z', a folder: rename one"),
        (["x\ny"], "object 'set/x\\\\ny' has a name that no file should have: rename it"),
        (["."], "object 'set/.' has a name that no file should have"),
    ],
)
def test_objects_that_are_no_files_of_one_folder_are_refused_by_name(
    cloud: Cloud, tmp_path: Path, names: list[str], message: str
) -> None:
    cloud.put({f"set/{name}": name.encode() for name in names})
    with pytest.raises(StorageError, match=message):
        storage.fetch_folder("gs://street/set", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_name_that_leaves_the_folder_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    cloud.put({"set/passwd": b"root"})
    cloud.edit = lambda path, content, headers: content.replace(b'"set/passwd"', b'"set/../../etc/passwd"')
    with pytest.raises(StorageError, match=r"object 'set/../../etc/passwd' has a name that leaves the folder"):
        storage.fetch_folder("gs://street/set", tmp_path / "deep" / "out")
    assert not contents(tmp_path)


def test_names_that_are_odd_and_differ_are_kept_as_they_are(cloud: Cloud, tmp_path: Path) -> None:
    files = {
        "a\\b": b"1",
        "dot.": b"2",
        "A": b"3",
        "a": b"4",
        "é\u202fü.png": b"5",
        "x" * 255: b"6",
        "deep/" * 40 + "x": b"7",
    }
    cloud.put({f"set/{name}": content for name, content in files.items()})
    assert contents(storage.fetch_folder("gs://street/set", tmp_path / "out")) == files


def test_where_case_does_not_count_names_that_differ_by_it_are_refused(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.put({"set/A.jpg": b"1", "set/a.jpg": b"2"})
    assert len(contents(storage.fetch_folder("gs://street/set", tmp_path / "here"))) == 2
    monkeypatch.setattr(  # the disk of a Mac
        Path, "exists", lambda path: path.name.casefold() in {name.name.casefold() for name in path.parent.iterdir()}
    )
    with pytest.raises(StorageError, match=r"objects 'set/A.jpg' and 'set/a.jpg' would be one file"):
        storage.fetch_folder("gs://street/set", tmp_path / "there")


@pytest.mark.parametrize("name", ["x" * 256, "x" * 256 + "/y"])
def test_a_name_that_the_disk_cannot_hold_is_one_line_and_leaves_nothing(
    cloud: Cloud, tmp_path: Path, name: str
) -> None:
    cloud.put({f"set/{name}": b"x", "set/a": b"a"})
    with pytest.raises(StorageError, match=rf"gs://street/set/{name}: File name too long"):
        storage.fetch_folder("gs://street/set", tmp_path / "out")
    assert not list(tmp_path.iterdir())
