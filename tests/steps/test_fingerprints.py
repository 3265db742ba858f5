"""Who reads a source that has changed since its fingerprint was told refuses it, and says so in one line."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natix_lib import config, storage
from natix_lib.contracts import STEPS
from natix_lib.data.listing import is_hidden
from natix_lib.data.previous import read_previous
from natix_lib.errors import DataError, StorageError
from natix_lib.steps import fetch, ingest, shard, split
from natix_lib.steps.fingerprints import BACKBONE, fingerprints, require_unchanged
from tests.cloud_storage import BUCKET, Cloud
from tests.street_sets import ingested_and_split, write_images


def ingested(root: str | Path, out: Path, told: str) -> None:
    paths = {"images": str(out / "images"), "index": str(out / "index"), "rejects": str(out / "rejects")}
    ingest.run({"data": {"data_root": str(root)}}, **paths, data_fingerprint=told)


def sharded(root: str | Path, out: Path, told: str) -> None:
    paths = {"images": str(out / "images"), "part": str(out / "part")}
    shard.run({"data": {"data_root": str(root)}}, shard="1/2", **paths, data_fingerprint=told)


@pytest.mark.parametrize("read", [ingested, sharded])
def test_images_that_came_after_the_listing_are_not_taken_for_what_was_listed(
    tmp_path: Path, read: Callable[[str | Path, Path, str], None]
) -> None:
    root = write_images(tmp_path / "source", groups=2)
    told = storage.fingerprint(str(root))
    read(root, tmp_path / "same", told)
    shutil.copyfile(root / "00-0.png", root / "new.png")
    with pytest.raises(StorageError, match=f"^data.data_root {root} was changed since this run began: run again when"):
        read(root, tmp_path / "changed", told)
    read(root, tmp_path / "untold", "")


def test_objects_that_came_after_the_listing_are_not_either(cloud: Cloud, tmp_path: Path) -> None:
    root, uri = write_images(tmp_path / "source", groups=2), f"gs://{BUCKET}/street"
    cloud.put({f"street/{path.name}": path.read_bytes() for path in root.iterdir()})
    told = storage.fingerprint(uri)
    ingested(uri, tmp_path / "same", told)
    cloud.put({"street/new.png": b""})
    with pytest.raises(StorageError, match=f"^data.data_root {uri} was changed since this run began"):
        ingested(uri, tmp_path / "changed", told)


def test_a_backbone_that_was_replaced_after_the_listing_is_not_what_was_listed(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(tiny_backbone, tmp_path / "source"))
    settings, told = {"backbone_id": str(source), "backbone_revision": "main"}, storage.fingerprint(str(source))
    fetch.run(settings, backbone=str(tmp_path / "same"), backbone_fingerprint=told)
    (source / "LICENSE.md").write_text("another")
    with pytest.raises(StorageError, match=f"^model.backbone_id {source} was changed since this run began"):
        fetch.run(settings, backbone=str(tmp_path / "changed"), backbone_fingerprint=told)
    assert not (tmp_path / "changed" / "backbone.json").exists()


def test_another_division_than_was_told_is_refused_before_any_image_is_read(tmp_path: Path) -> None:
    made = ingested_and_split(tmp_path, groups=12)
    settings = {"split": {"previous": made["splits"]}}
    outputs = {name: str(tmp_path / "again" / name) for name in STEPS["split"].outputs}

    def divide(told: str, images: str) -> None:
        split.run(settings, images=images, index=made["index"], previous_fingerprint=told, **outputs)

    with pytest.raises(StorageError, match=f"^split.previous {made['splits']} was changed since this run began: run"):
        divide("0" * 64, "/absent")
    divide(read_previous(made["splits"]).sha256, made["images"])


def of_backbone(backbone: Path) -> str:
    settings = {"data": {"data_root": str(backbone)}, "model": {"backbone_id": str(backbone)}}
    parsed = config.parse(config.Config, {**settings, "export": {"policy": "sweep"}})
    return fingerprints(parsed)["backbone_fingerprint"]


def test_a_pod_tells_the_same_of_a_folder_that_was_unpacked_or_mounted_anew_and_another_process_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "first node", tmp_path / "second node"]
    for folder in folders:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        os.utime(folder / "config.json", (1, 1))
    assert of_backbone(folders[0]) != of_backbone(folders[1])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    told = of_backbone(folders[0])
    assert told == of_backbone(folders[1])
    before = (folders[0] / "config.json").stat()
    time.sleep(0.02)  # a file system's clock may tick every 10 ms
    os.lchown(folders[0] / "config.json", -1, before.st_gid)  # as a kubelet does at each mount with an fsGroup
    assert (folders[0] / "config.json").stat().st_ctime_ns != before.st_ctime_ns
    require_unchanged(BACKBONE, str(folders[0]), told)
    (folders[0] / "config.json").write_text("[]")
    with pytest.raises(StorageError, match="was changed since"):
        require_unchanged(BACKBONE, str(folders[0]), told)


def test_hidden_files_that_come_below_the_images_refuse_nothing_and_hidden_images_are_no_images(tmp_path: Path) -> None:
    root = write_images(tmp_path / "source", groups=2)
    told = storage.fingerprint(str(root), left_out=is_hidden)
    (root / ".cache" / "run").mkdir(parents=True)
    for name in (".DS_Store", ".cache/run/image.png", "Thumbs.db"):
        (root / name).write_text("of no person")
    ingested(root, tmp_path / "same", told)
    shutil.copyfile(root / "00-0.png", root / ".cache" / "new.png")
    (root / "manifest.csv").write_text("image,label\n00-0.png,None\n.cache/new.png,None\n01-0.png,Roadwork\n")
    with pytest.raises(DataError, match=r"^data.data_root .*: .cache/new.png is to be read and hidden .*: rename it$"):
        ingested(root, tmp_path / "hidden", storage.fingerprint(str(root), left_out=is_hidden))
    ingested(root, tmp_path / "untold", "")


@pytest.mark.parametrize("step", ["ingest", "fetch"])
def test_a_source_that_has_changed_before_it_is_read_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(ingest, "local_root", never)
    monkeypatch.setattr(fetch, "copy_backbone", never)
    with pytest.raises(StorageError, match="was changed since this run began"):
        if step == "ingest":
            ingested(tmp_path, tmp_path / "out", "0" * 64)
        else:
            settings = {"backbone_id": str(tmp_path), "backbone_revision": "main"}
            fetch.run(settings, backbone=str(tmp_path / "out"), backbone_fingerprint="0" * 64)


@pytest.mark.parametrize("step", ["ingest", "fetch"])
def test_a_source_that_changes_while_it_is_read_is_refused_after_it(
    tmp_path: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    reader = ingest if step == "ingest" else fetch
    name = "open_source" if step == "ingest" else "copy_backbone"
    root = write_images(tmp_path / "source", groups=2)
    source = root if step == "ingest" else Path(shutil.copytree(tiny_backbone, tmp_path / "backbone"))
    read = getattr(reader, name)

    def change_too(*arguments: Any) -> Any:
        (source / "NOTICE").write_text("new")
        return read(*arguments)

    told = storage.fingerprint(str(source))
    monkeypatch.setattr(reader, name, change_too)
    with pytest.raises(StorageError, match="was changed since this run began"):
        if step == "ingest":
            ingested(source, tmp_path / "out", told)
        else:
            settings = {"backbone_id": str(source), "backbone_revision": "main"}
            fetch.run(settings, backbone=str(tmp_path / "out"), backbone_fingerprint=told)
