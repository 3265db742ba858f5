"""Who reads a source that has changed since its fingerprint was told refuses it, and says so in one line."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from natix_lib import config, storage
from natix_lib.contracts import STEPS
from natix_lib.data.previous import read_previous
from natix_lib.errors import StorageError
from natix_lib.steps import fetch, ingest, shard, split
from natix_lib.steps.fingerprints import fingerprints, require_unchanged
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
    with pytest.raises(
        StorageError, match=f"^data.data_root {root} was changed while this run read it: run again when"
    ):
        read(root, tmp_path / "changed", told)
    read(root, tmp_path / "untold", "")


def test_objects_that_came_after_the_listing_are_not_either(cloud: Cloud, tmp_path: Path) -> None:
    root, uri = write_images(tmp_path / "source", groups=2), f"gs://{BUCKET}/street"
    cloud.put({f"street/{path.name}": path.read_bytes() for path in root.iterdir()})
    told = storage.fingerprint(uri)
    ingested(uri, tmp_path / "same", told)
    cloud.put({"street/new.png": b""})
    with pytest.raises(StorageError, match=f"^data.data_root {uri} was changed while this run read it"):
        ingested(uri, tmp_path / "changed", told)


def test_a_backbone_that_was_replaced_after_the_listing_is_not_what_was_listed(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(tiny_backbone, tmp_path / "source"))
    settings, told = {"backbone_id": str(source), "backbone_revision": "main"}, storage.fingerprint(str(source))
    fetch.run(settings, backbone=str(tmp_path / "same"), backbone_fingerprint=told)
    (source / "LICENSE.md").write_text("another")
    with pytest.raises(StorageError, match=f"^model.backbone_id {source} was changed while this run read it"):
        fetch.run(settings, backbone=str(tmp_path / "changed"), backbone_fingerprint=told)
    assert not (tmp_path / "changed" / "backbone.json").exists()


def test_another_division_than_was_told_is_refused_before_any_image_is_read(tmp_path: Path) -> None:
    made = ingested_and_split(tmp_path, groups=12)
    settings = {"split": {"previous": made["splits"]}}
    outputs = {name: str(tmp_path / "again" / name) for name in STEPS["split"].outputs}

    def divide(told: str, images: str) -> None:
        split.run(settings, images=images, index=made["index"], previous_fingerprint=told, **outputs)

    with pytest.raises(StorageError, match=f"^split.previous {made['splits']} was changed while this run read it: run"):
        divide("0" * 64, "/absent")
    divide(read_previous(made["splits"]).sha256, made["images"])


def test_what_has_come_with_a_pods_image_is_the_same_on_every_node_and_what_a_volume_holds_is_told_whole(
    tmp_path: Path,
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as volume:  # another disk than that of "/"
        folders = [Path(volume), tmp_path / "first node", tmp_path / "second node"]
        for folder in folders:
            folder.mkdir(exist_ok=True)
            (folder / "config.json").write_text("{}")
            os.utime(folder / "config.json", (1, 1))

        def told(backbone: Path, in_pod: bool) -> str:
            model = {"data": {"data_root": volume}, "model": {"backbone_id": str(backbone)}}
            parsed = config.parse(config.Config, {**model, "export": {"policy": "sweep"}})
            return fingerprints(parsed, in_pod=in_pod)["backbone_fingerprint"]

        on_node, elsewhere = (told(folder, True) for folder in folders[1:])
        assert len({told(folder, False) for folder in folders}) == 3
        assert told(folders[0], True) == told(folders[0], False)
    if tmp_path.stat().st_dev == Path("/").stat().st_dev:
        assert on_node == elsewhere
        require_unchanged("model.backbone_id", str(folders[2]), on_node)
        (folders[2] / "config.json").write_text("[]")
        with pytest.raises(StorageError, match="was changed while"):
            require_unchanged("model.backbone_id", str(folders[2]), on_node)
