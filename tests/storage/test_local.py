"""A disk is no bucket: files are used where they lie, links lead elsewhere, and a file keeps its time."""

import inspect
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from natix_lib import storage
from natix_lib.errors import StorageError
from tests.storage.places import bundle, contents


def test_a_local_folder_or_file_is_used_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert storage.fetch_folder(str(tmp_path), tmp_path / "copy") == tmp_path
    assert storage.fetch_file(str(tmp_path / "file"), tmp_path / "copy") == tmp_path / "file"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="is no folder"):
        storage.fetch_folder(str(tmp_path / "file"), tmp_path / "out")
    with pytest.raises(StorageError, match="is no file"):
        storage.fetch_file(str(tmp_path), tmp_path)


def test_a_failed_publication_leaves_nothing(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", "first")
    (folder / "gone.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match="cannot publish to"):
        storage.publish_folder(folder, str(tmp_path / "out" / "v1"), "bundle.json")
    assert not list((tmp_path / "out").iterdir())


def test_the_fingerprint_is_of_one_file_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    before = storage.fingerprint(str(tmp_path / "a.csv"))
    (tmp_path / "b.csv").write_text("1")
    assert storage.fingerprint(str(tmp_path / "a.csv")) == before
    (tmp_path / "a.csv").write_text("22")
    assert storage.fingerprint(str(tmp_path / "a.csv")) != before


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
    changes: tuple[Callable[[], object], ...] = (
        lambda: (elsewhere / "deep" / "a.png").write_text("22"),
        lambda: (elsewhere / "b.png").write_text("22"),
        lambda: (tmp_path / "gone.png").write_text("22"),
        lambda: (root / "gone.png").unlink(),
        lambda: (root / "b\udcff.png").touch(),
    )
    for change in changes:
        change()
        seen.append(storage.fingerprint(str(root)))
    assert len(set(seen)) == len(seen)


def test_a_picture_replaced_by_one_of_the_same_size_and_date_changes_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "set" / "a.png"
    path.parent.mkdir()
    path.write_text("1")
    status, before = path.stat(), storage.fingerprint(str(path.parent))
    for written in (path, tmp_path / "other"):
        time.sleep(0.02)  # a file system's clock may tick every 10 ms
        written.write_text("2")
        written.rename(path)
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


def test_what_a_link_leads_to_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"1")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    storage.remove_folder(str(tmp_path / "set"))
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="symbolic link"):
        storage.remove_folder(str(tmp_path / "link"))
    assert contents(tmp_path / "elsewhere") == {"a.png": b"1"}


def test_folders_nested_deeper_than_calls_may_be_have_a_fingerprint(tmp_path: Path) -> None:
    name = "d/" * 200 + "a.png"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("1")
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)  # instead of a thousand folders and more
    try:
        sizes, fingerprint = storage.sizes(str(tmp_path)), storage.fingerprint(str(tmp_path))
    finally:
        sys.setrecursionlimit(before)
    assert sizes == {name: 1}
    (tmp_path / name).write_text("22")
    assert storage.fingerprint(str(tmp_path)) != fingerprint


def test_a_folder_that_many_links_reach_is_read_once_and_each_link_counts(tmp_path: Path) -> None:
    for number in range(24):
        (tmp_path / f"{number:02}").mkdir()
        (tmp_path / f"{number:02}" / "a.png").write_text("1")
        for name in ("left", "right"):  # 2**24 ways to the last folder
            (tmp_path / f"{number:02}" / name).symlink_to(tmp_path / f"{min(number + 1, 23):02}")
    assert sum(storage.sizes(str(tmp_path / "00")).values()) == 24
    before = storage.fingerprint(str(tmp_path / "00"))
    (tmp_path / "00" / "right").unlink()
    without = storage.fingerprint(str(tmp_path / "00"))
    (tmp_path / "00" / "right").symlink_to(tmp_path / "05")
    assert len({before, without, storage.fingerprint(str(tmp_path / "00"))}) == 3
