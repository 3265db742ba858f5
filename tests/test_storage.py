"""Storage against an emulator that the tests start themselves, and on the local disk."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from natix_lib import storage
from natix_lib.errors import StorageError
from tests.cloud_storage import BUCKET, Cloud


@pytest.fixture
def bucket(cloud: Cloud) -> Any:
    return storage._client().bucket(BUCKET)


def put(bucket: Any, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        bucket.blob(name).upload_from_string(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_nested_folder_is_fetched_whole(bucket: Any, tmp_path: Path) -> None:
    files = {f"images/{i % 3}/{i}.jpg": os.urandom(1000 + i) for i in range(40)}
    put(bucket, {f"set/{name}": content for name, content in files.items()} | {"set-b/other": b"x", "set/": b""})
    folder = storage.fetch_folder("gs://street/set", tmp_path / "set")
    assert contents(folder) == files


def test_one_object_is_fetched(bucket: Any, tmp_path: Path) -> None:
    put(bucket, {"a/manifest.csv": b"image,label\n"})
    assert storage.fetch_file("gs://street/a/manifest.csv", tmp_path).read_bytes() == b"image,label\n"
    with pytest.raises(StorageError, match="gs://street/a/absent does not exist"):
        storage.fetch_file("gs://street/a/absent", tmp_path)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://street/absent", "holds no object"),
        ("gs://no-such-bucket/x", "does not exist"),
        ("gs://street", "must read gs://bucket/path"),
    ],
)
def test_an_address_with_nothing_behind_it_is_one_line(bucket: Any, tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        storage.fetch_folder(uri, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_corrupt_transfer_leaves_nothing(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(bucket, {"set/good": b"good", "set/bad": b"bad"})
    listed = storage._list

    def tampered(uri: str) -> list[Any]:
        blobs = listed(uri)
        blobs[0]._properties["crc32c"] = "AAAAAA=="
        return blobs

    monkeypatch.setattr(storage, "_list", tampered)
    with pytest.raises(StorageError, match=r"gs://street/set/bad does not match its crc32c"):
        storage.fetch_folder("gs://street/set", tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    class Escaping:
        name = "set/../../etc/passwd"

    with pytest.raises(StorageError, match="has a name that leaves the folder"):
        storage._in_folder("gs://street/set", tmp_path, [Escaping()])


def test_a_passing_503_is_retried(bucket: Any, cloud: Cloud, tmp_path: Path) -> None:
    put(bucket, {"set/a": b"content"})
    cloud.failures = 2
    assert contents(storage.fetch_folder("gs://street/set", tmp_path / "set")) == {"a": b"content"}
    assert cloud.failures == 0


def bundle(folder: Path, content: str) -> Path:
    (folder / "golden").mkdir(parents=True)
    for name in ("model.onnx", "golden/wide.png", "bundle.json"):
        (folder / name).write_text(f"{content} {name}")
    return folder


def test_a_bundle_is_published_once(bucket: Any, tmp_path: Path) -> None:
    place = storage.publish_folder(bundle(tmp_path / "b", "first"), "gs://street/models/v1", "bundle.json")
    assert place == "gs://street/models/v1/bundle.json"
    assert contents(storage.fetch_folder("gs://street/models/v1", tmp_path / "back")) == contents(tmp_path / "b")
    with pytest.raises(StorageError, match=r"already holds bundle.json, name another place"):
        storage.publish_folder(bundle(tmp_path / "c", "second"), "gs://street/models/v1", "bundle.json")
    assert contents(storage.fetch_folder("gs://street/models/v1", tmp_path / "again")) == contents(tmp_path / "b")


def test_of_publishers_at_once_one_wins_and_nothing_is_mixed(bucket: Any, tmp_path: Path) -> None:
    folders = [bundle(tmp_path / str(i), f"run {i}") for i in range(6)]

    def publish(folder: Path) -> Path | None:
        try:
            storage.publish_folder(folder, "gs://street/models/race", "bundle.json")
            return folder
        except StorageError:
            return None

    with ThreadPoolExecutor(6) as pool:
        winners = [folder for folder in pool.map(publish, folders) if folder]
    assert len(winners) == 1
    found = contents(storage.fetch_folder("gs://street/models/race", tmp_path / "back"))
    assert found == contents(winners[0])


def test_a_publisher_that_was_killed_leaves_no_manifest_and_stops_the_next(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = storage._upload

    def dying(uri: str, blob: Any, *rest: Any) -> None:
        if blob.name.endswith("model.onnx"):
            raise KeyboardInterrupt
        upload(uri, blob, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_upload", dying)
        with pytest.raises(KeyboardInterrupt):
            storage.publish_folder(bundle(tmp_path / "b", "first"), "gs://street/models/v2", "bundle.json")
    assert not bucket.blob("models/v2/bundle.json").exists()
    with pytest.raises(StorageError, match="another run is publishing there, or was stopped"):
        storage.publish_folder(bundle(tmp_path / "c", "second"), "gs://street/models/v2", "bundle.json")


def test_a_local_place_is_taken_once(tmp_path: Path) -> None:
    place = storage.publish_folder(bundle(tmp_path / "b", "first"), str(tmp_path / "out" / "v1"), "bundle.json")
    assert contents(tmp_path / "out" / "v1") == contents(tmp_path / "b") and place.endswith("v1/bundle.json")
    with pytest.raises(StorageError, match="it exists already"):
        storage.publish_folder(tmp_path / "b", str(tmp_path / "out" / "v1"), "bundle.json")


def test_the_fingerprint_follows_the_bucket(bucket: Any) -> None:
    put(bucket, {"set/a": b"1", "set/b": b"2"})
    before = storage.fingerprint("gs://street/set")
    assert storage.fingerprint("gs://street/set") == before
    put(bucket, {"set/b": b"3"})
    assert storage.fingerprint("gs://street/set") != before


def test_the_fingerprint_follows_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = storage.fingerprint(str(tmp_path))
    assert storage.fingerprint(str(tmp_path)) == before
    (tmp_path / "b").write_text("2")
    assert storage.fingerprint(str(tmp_path)) != before
    with pytest.raises(StorageError, match="does not exist"):
        storage.fingerprint(str(tmp_path / "absent"))


def test_the_fingerprint_follows_links_and_ends_in_a_circle_of_them(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "a.png").write_text("1")
    (elsewhere / "b.png").write_text("1")
    root.mkdir()
    (root / "Roadwork").symlink_to(elsewhere / "deep")
    (root / "b.png").symlink_to(elsewhere / "b.png")
    (root / "gone.png").symlink_to(tmp_path / "gone.png")
    (root / "self.png").symlink_to("self.png")
    (elsewhere / "deep" / "up").symlink_to(root)
    seen = [storage.fingerprint(str(root))]
    assert storage.fingerprint(str(root)) == seen[0]
    for change in (
        lambda: (elsewhere / "deep" / "a.png").write_text("22"),
        lambda: (elsewhere / "b.png").write_text("22"),
        lambda: (tmp_path / "gone.png").write_text("22"),
        lambda: (root / "gone.png").unlink(),
        lambda: (root / "b\udcff.png").touch(),
    ):
        change()
        seen.append(storage.fingerprint(str(root)))
    assert len(set(seen)) == len(seen)


def test_a_picture_replaced_by_one_of_the_same_size_and_date_changes_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "set" / "a.png"
    path.parent.mkdir()
    path.write_text("1")
    status, before = path.stat(), storage.fingerprint(str(path.parent))
    for replace in (lambda: path.write_text("2"), lambda: (tmp_path / "other").write_text("3")):
        time.sleep(0.02)  # a file system's clock may tick every 10 ms
        replace()
        if (tmp_path / "other").exists():
            (tmp_path / "other").rename(path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_mtime_ns == status.st_mtime_ns and path.stat().st_size == status.st_size
        after = storage.fingerprint(str(path.parent))
        assert after != before
        before = after


def test_the_fingerprint_does_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    (tmp_path / "set" / "c").mkdir(parents=True)
    (tmp_path / "set" / "c" / "a.png").touch()
    before = storage.fingerprint(str(tmp_path / "set"))
    (tmp_path / "set").rename(tmp_path / "moved")
    assert storage.fingerprint(str(tmp_path / "moved")) == before


def test_a_local_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    assert storage.fetch_folder(str(tmp_path), tmp_path / "copy") == tmp_path
    with pytest.raises(StorageError, match="does not exist"):
        storage.fetch_folder(str(tmp_path / "absent"), tmp_path / "copy")


@pytest.mark.parametrize("remote", [False, True])
def test_a_file_is_written_over_listed_and_removed(bucket: Any, tmp_path: Path, remote: bool) -> None:
    folder = "gs://street/checkpoints" if remote else str(tmp_path / "checkpoints")
    assert storage.file_names(folder) == []
    storage.write_file(f"{folder}/b", b"one")
    storage.write_file(f"{folder}/b", b"two")
    storage.write_file(f"{folder}/a", b"")
    storage.write_file(f"{folder}/deeper/c", b"")
    assert storage.file_names(folder) == ["a", "b"]
    assert storage.fetch_file(f"{folder}/b", tmp_path).read_bytes() == b"two"
    storage.remove_file(f"{folder}/b")
    storage.remove_file(f"{folder}/b")
    assert storage.file_names(folder) == ["a"]


def test_a_folder_is_mirrored_and_what_is_there_is_not_sent_again(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "set" / "deep").mkdir(parents=True)
    (tmp_path / "set" / "a").write_bytes(b"first")
    (tmp_path / "set" / "deep" / "b").write_bytes(b"second")
    storage.mirror(tmp_path / "set", "gs://street/shared/set")
    before = {blob.name: blob.generation for blob in bucket.list_blobs(prefix="shared/")}
    assert set(before) == {"shared/set/a", "shared/set/deep/b"}
    (tmp_path / "set" / "a").write_bytes(b"other")
    storage.mirror(tmp_path / "set", "gs://street/shared/set")
    after = {blob.name: blob.generation for blob in bucket.list_blobs(prefix="shared/")}
    assert after["shared/set/deep/b"] == before["shared/set/deep/b"]
    assert after["shared/set/a"] != before["shared/set/a"]
    assert bucket.blob("shared/set/a").download_as_bytes() == b"other"
    storage.mirror(tmp_path / "set" / "a", "gs://street/shared/one")
    assert bucket.blob("shared/one").download_as_bytes() == b"other"


def test_a_folder_is_removed_and_its_neighbour_is_not(bucket: Any) -> None:
    put(bucket, {"shared/set/a": b"a", "shared/set/deep/b": b"b", "shared/set-2/c": b"c"})
    storage.remove_folder("gs://street/shared/set")
    storage.remove_folder("gs://street/shared/absent")
    assert [blob.name for blob in bucket.list_blobs(prefix="shared/")] == ["shared/set-2/c"]


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
    bucket: Any, tmp_path: Path, names: list[str], message: str
) -> None:
    put(bucket, {f"set/{name}": name.encode() for name in names})
    with pytest.raises(StorageError, match=message):
        storage.fetch_folder("gs://street/set", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_names_that_are_odd_and_differ_are_kept_as_they_are(bucket: Any, tmp_path: Path) -> None:
    files = {
        "a\\b": b"1",
        "dot.": b"2",
        "A": b"3",
        "a": b"4",
        "é\u202fü.png": b"5",
        "x" * 255: b"6",
        "deep/" * 40 + "x": b"7",
    }
    put(bucket, {f"set/{name}": content for name, content in files.items()})
    assert contents(storage.fetch_folder("gs://street/set", tmp_path / "out")) == files


def test_where_case_does_not_count_names_that_differ_by_it_are_refused(tmp_path: Path) -> None:
    class Upper:
        name = "set/A.jpg"

    class Lower:
        name = "set/a.jpg"

    assert len(storage._in_folder("gs://street/set", tmp_path, [Upper(), Lower()])) == 2
    with pytest.raises(StorageError, match=r"objects 'set/A.jpg' and 'set/a.jpg' would be one file"):
        storage._in_folder("gs://street/set", tmp_path, [Upper(), Lower()], str.casefold)


def test_a_name_that_the_disk_cannot_hold_is_one_line_and_leaves_nothing(bucket: Any, tmp_path: Path) -> None:
    put(bucket, {"set/" + "x" * 256: b"x", "set/a": b"a"})
    with pytest.raises(StorageError, match=r"gs://street/set/x{256}: File name too long"):
        storage.fetch_folder("gs://street/set", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("a\0b", "a path must not contain a NUL, got 'a.x00b'"),
        ("", "a path must name a file or folder, got ''"),
        ("s3://bucket/x", "no other addresses are read, got 's3://bucket/x'"),
        ("gs:/bucket/x", "no other addresses are read"),
        ("gs://Bucket/x", "a bucket address must name a bucket"),
        ("gs://street/a/../b", "a bucket address must name an object without empty parts"),
        ("gs://street/a\nb", "a bucket address must name an object"),
        ("{file}/below", "Not a directory|does not exist|File exists"),
        ("{long}", "File name too long"),
    ],
)
def test_a_place_that_is_none_is_one_line_whatever_is_done_there(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    uri = place.format(file=tmp_path / "file", long=tmp_path / ("x" * 300))
    folder = bundle(tmp_path / "b", "first")
    for attempt in (
        lambda: storage.fetch_file(uri, tmp_path),
        lambda: storage.fetch_folder(uri, tmp_path / "out"),
        lambda: storage.write_file(uri, b"x"),
        lambda: storage.remove_file(uri),
        lambda: storage.file_names(uri) == [] and uri.endswith("below") and storage.fetch_file(uri, tmp_path),
        lambda: storage.publish_folder(folder, uri, "bundle.json"),
    ):
        with pytest.raises(StorageError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="is no folder"):
        storage.fetch_folder(str(tmp_path / "file"), tmp_path / "out")
    with pytest.raises(StorageError, match="is no file"):
        storage.fetch_file(str(tmp_path), tmp_path)
