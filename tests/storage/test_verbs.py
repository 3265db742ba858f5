"""What the verbs promise of every place: a disk, Cloud Storage, and a bucket of a kind that is added."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from natix_lib import storage
from natix_lib.errors import StorageError
from tests.cloud_storage import BUCKET, Cloud
from tests.storage.places import Place, bundle, contents


def test_a_nested_folder_is_fetched_whole(place: Place, tmp_path: Path) -> None:
    files = {f"images/{i % 3}/{i}.jpg": os.urandom(1000 + i) for i in range(40)}
    place.put({f"set/{name}": content for name, content in files.items()} | {"set-b/other": b"x"})
    assert contents(storage.fetch_folder(place.uri("set"), tmp_path / "set")) == files


def test_what_is_not_wanted_of_a_bucket_becomes_an_empty_file(place: Place, tmp_path: Path) -> None:
    place.put({"set/a/0.jpg": b"picture", "set/a/manifest.csv": b"image", "set/b/large.csv": b"x" * 9})
    folder = storage.fetch_folder(
        place.uri("set"), tmp_path / "set", lambda name, size: name.endswith(".csv") and size < 9
    )
    left_out = {} if storage.is_remote(place.uri("set")) else {"a/0.jpg": b"picture", "b/large.csv": b"x" * 9}
    assert contents(folder) == {"a/0.jpg": b"", "a/manifest.csv": b"image", "b/large.csv": b""} | left_out


def test_one_file_is_fetched_under_its_name(place: Place, tmp_path: Path) -> None:
    place.put({"a/manifest.csv": b"image,label\n", "a/other": b"x"})
    path = storage.fetch_file(place.uri("a/manifest.csv"), tmp_path / "out")
    assert path.name == "manifest.csv" and path.read_bytes() == b"image,label\n"


def test_nothing_there_is_one_line_that_names_the_address(place: Place, tmp_path: Path) -> None:
    uri = place.uri("absent")
    for attempt in (
        lambda: storage.fetch_file(uri, tmp_path),
        lambda: storage.fetch_folder(uri, tmp_path / "out"),
        lambda: storage.fingerprint(uri),
        lambda: storage.sizes(uri),
    ):
        with pytest.raises(StorageError, match=rf"{uri} (does not exist|holds no object)$"):
            attempt()
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_over_listed_and_removed(place: Place, tmp_path: Path) -> None:
    folder = place.uri("checkpoints")
    assert storage.file_names(folder) == []
    storage.write_file(f"{folder}/b", b"one")
    storage.write_file(f"{folder}/b", b"two")
    storage.write_file(f"{folder}/a", b"")
    storage.write_file(f"{folder}/deeper/c", b"")
    assert storage.file_names(folder) == ["a", "b"] == storage.file_names(f"{folder}/")
    assert storage.fetch_file(f"{folder}/b", tmp_path).read_bytes() == b"two"
    storage.remove_file(f"{folder}/b")
    storage.remove_file(f"{folder}/b")
    assert storage.file_names(folder) == ["a"]


def test_sizes_are_those_of_every_file_below(place: Place) -> None:
    place.put({"set/a.jpg": b"123", "set/deep/b.jpg": b"", "set-2/c": b"3"})
    assert storage.sizes(place.uri("set")) == {"a.jpg": 3, "deep/b.jpg": 0}


def test_one_file_has_a_size_and_a_fingerprint_too(place: Place) -> None:
    place.put({"deep/set.zip": b"123", "deep/set.zip-2": b"3"})
    uri = place.uri("deep/set.zip")
    assert storage.sizes(uri) == {"set.zip": 3}
    before = storage.fingerprint(uri)
    place.put({"deep/other": b"1"})
    assert storage.fingerprint(uri) == before
    place.put({"deep/set.zip": b"4567"})
    assert storage.fingerprint(uri) != before


def test_the_fingerprint_follows_what_is_there(place: Place) -> None:
    place.put({"set/a": b"1", "set/b": b"2", "set-2/c": b"3"})
    seen = [storage.fingerprint(place.uri("set"))]
    assert storage.fingerprint(place.uri("set")) == seen[0]
    changes: tuple[Callable[[], object], ...] = (
        lambda: place.put({"set/b": b"33"}),
        lambda: place.put({"set/deep/c": b"33"}),
        lambda: storage.remove_file(place.uri("set/a")),
    )
    for change in changes:
        change()
        seen.append(storage.fingerprint(place.uri("set")))
    place.put({"set-2/c": b"44"})
    assert storage.fingerprint(place.uri("set")) == seen[-1]
    assert len(set(seen)) == len(seen)


def test_what_is_left_out_by_its_name_changes_no_fingerprint_and_a_part_of_the_address_is_not(place: Place) -> None:
    def told() -> str:
        return storage.fingerprint(place.uri(".set"), left_out=lambda name: name.startswith("."))

    place.put({".set/a": b"1", ".set/deep/b": b"2"})
    seen = [told()]
    place.put({".set/.cache/c": b"3", ".set/deep/.DS_Store": b"4"})
    assert told() == seen[0] != storage.fingerprint(place.uri(".set"))
    place.put({".set/deep/b": b"22"})
    assert told() != seen[0]


def test_an_object_named_as_a_folder_does_not_hide_what_changes_in_the_folder(cloud: Cloud) -> None:
    cloud.put({"set": b"", "set/a": b"1", "set/deep/": b""})
    uri, seen = f"gs://{BUCKET}/set", []
    for change in ({}, {"set/a": b"2"}, {"set/b": b"2"}, {"set": b"3"}):
        cloud.put(change)
        seen.append(storage.fingerprint(uri))
    assert len(set(seen)) == len(seen) and storage.fingerprint(f"{uri}/") == seen[-1]


def test_a_folder_is_mirrored_and_what_is_there_is_not_sent_again(place: Place, tmp_path: Path) -> None:
    (tmp_path / "set" / "deep").mkdir(parents=True)
    (tmp_path / "set" / "a").write_bytes(b"first")
    (tmp_path / "set" / "deep" / "b").write_bytes(b"second")
    place.put({"shared/set/neighbour": b"stays"})
    storage.mirror(tmp_path / "set", place.uri("shared/set"))
    before = place.writes()
    assert set(before) == {"shared/set/a", "shared/set/deep/b", "shared/set/neighbour"}
    (tmp_path / "set" / "a").write_bytes(b"other")
    storage.mirror(tmp_path / "set", place.uri("shared/set"))
    after = place.writes()
    assert {name for name in after if after[name] != before[name]} == {"shared/set/a"}
    storage.mirror(tmp_path / "set" / "a", place.uri("shared/one"))
    assert place.contents() == {
        "shared/set/a": b"other",
        "shared/set/deep/b": b"second",
        "shared/set/neighbour": b"stays",
        "shared/one": b"other",
    }


def test_a_folder_is_removed_and_its_neighbour_is_not(place: Place) -> None:
    place.put({"shared/set/a": b"a", "shared/set/deep/b": b"b", "shared/set-2/c": b"c", "shared/file": b"d"})
    storage.remove_folder(place.uri("shared/set"))
    storage.remove_folder(place.uri("shared/absent"))
    storage.remove_folder(place.uri("shared/file"))
    assert place.contents() == {"shared/set-2/c": b"c", "shared/file": b"d"}


def test_a_bundle_is_published_once(place: Place, tmp_path: Path) -> None:
    uri = place.uri("models/v1")
    assert storage.publish_folder(bundle(tmp_path / "b", "first"), uri, "bundle.json") == f"{uri}/bundle.json"
    published = {f"models/v1/{name}": content for name, content in contents(tmp_path / "b").items()}
    assert place.contents() == published
    for again in (uri, f"{uri}/"):
        with pytest.raises(StorageError, match=r"(already holds bundle.json|it exists already), name another place"):
            storage.publish_folder(bundle(tmp_path / f"again {len(again)}", "second"), again, "bundle.json")
    assert place.contents() == published


def test_of_publishers_at_once_one_wins_and_nothing_is_mixed(place: Place, tmp_path: Path) -> None:
    folders = [bundle(tmp_path / str(i), f"run {i}") for i in range(6)]

    def publish(folder: Path) -> Path | None:
        try:
            storage.publish_folder(folder, place.uri("models/race"), "bundle.json")
            return folder
        except StorageError:
            return None

    with ThreadPoolExecutor(6) as pool:
        winners = [folder for folder in pool.map(publish, folders) if folder]
    assert len(winners) == 1
    assert contents(storage.fetch_folder(place.uri("models/race"), tmp_path / "back")) == contents(winners[0])
    assert len(place.contents()) == 3


def test_a_place_where_nothing_can_be_kept_is_refused_by_the_key_that_names_it(tmp_path: Path, cloud: Cloud) -> None:
    (tmp_path / "file").write_text("")
    for root in (str(tmp_path / "file"), str(tmp_path / "file" / "below"), "gs://no-such-bucket/runs"):
        with pytest.raises(StorageError, match=f"training.checkpoint_root {root} cannot be written: "):
            storage.require_place("training.checkpoint_root", root)
    for root in (str(tmp_path / "a" / "b"), f"gs://{BUCKET}/runs"):
        storage.require_place("training.checkpoint_root", root)
    assert not list((tmp_path / "a" / "b").iterdir())
