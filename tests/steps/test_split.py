import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natix_lib.contracts import ROLES
from natix_lib.data.arrow import ShardWriter
from natix_lib.data.sets import open_set
from natix_lib.errors import DataError
from natix_lib.files import read_json
from tests.street_sets import ingest_settings, ingested, run_step, write_images, write_manifest

Paths = dict[str, str]


def run(ingested: Paths, out: Path, **settings: object) -> dict:
    """splits.json of a division below the folder `out`."""
    return read_json(run_step("split", {"split": settings}, out, ingested)[0]["splits"])


def ingest(root: Path, folder: Path, **data: Any) -> Paths:
    return run_step("ingest", ingest_settings(root, **data), folder)[0]


def rewritten(tmp_path: Path, change: Callable[[int, dict], dict], **sizes: Any) -> Paths:
    """Ingested images whose manifest rows were changed."""
    root = write_images(tmp_path / "source", **sizes)
    rows = list(csv.DictReader((root / "manifest.csv").read_text().splitlines()))
    write_manifest(root, [change(number, row) for number, row in enumerate(rows)])
    return ingest(root, tmp_path / "ingested")


def test_groups_never_cross_and_every_class_is_everywhere(tmp_path: Path) -> None:
    document = run(ingested(tmp_path), tmp_path)
    role_of = {name: role for role in ROLES for name in document["roles"][role]}
    assert len(role_of) == 72
    for group in range(24):
        assert len({role_of[f"{group:02d}-{frame}.png"] for frame in range(3)}) == 1
    assert all(count > 0 for counts in document["counts"].values() for count in counts.values())
    assert sum(document["ratios"]["achieved"].values()) == pytest.approx(1)
    assert document["links"]["group"] == 48


def test_near_duplicates_never_cross_splits(tmp_path: Path) -> None:
    """Copies of other quality without any group: pixels differ, the scene is the same."""
    from PIL import Image

    from natix_lib.demo.dataset import draw_dataset

    draw_dataset(tmp_path / "drawn", images=80, seed=1)
    rows = []
    for number, path in enumerate(sorted((tmp_path / "drawn" / "images").iterdir())[:60:2]):
        with Image.open(path) as image:
            for quality in (95, 40):
                name = f"{number:02d}-{quality}.jpg"
                (tmp_path / "source").mkdir(exist_ok=True)
                image.save(tmp_path / "source" / name, quality=quality)
                rows.append({"image": name, "label": "None" if number % 2 else "Roadwork"})
    write_manifest(tmp_path / "source", rows)
    paths = ingest(tmp_path / "source", tmp_path)
    document = run(paths, tmp_path / "a")
    role_of = {name: role for role in ROLES for name in document["roles"][role]}
    assert all(role_of[f"{n:02d}-95.jpg"] == role_of[f"{n:02d}-40.jpg"] for n in range(30))
    switched_off = run(paths, tmp_path / "b", near_duplicate_bits=-1, drive_names=False)
    assert len(set(switched_off["groups"].values())) == 60


def test_places_within_the_radius_never_cross_splits(tmp_path: Path) -> None:
    """Two drives at each place, two metres apart."""

    def located(number: int, row: dict) -> dict:
        group = int(row["group"][1:])
        return {**row, "lat": 48 + 0.01 * (group // 2) + 1e-5 * (group % 2), "lon": 11}

    dataset = rewritten(tmp_path, located, groups=48, frames=1)
    document = run(dataset, tmp_path)
    assert len(set(document["groups"].values())) == 24 and document["links"]["place"] == 24
    assert len(set(run(dataset, tmp_path / "b", gps_radius_m=1.0)["groups"].values())) == 48


def test_given_splits_are_honoured(tmp_path: Path) -> None:
    words = ["train", "val_select", "val_calib", "val_test"]
    dataset = rewritten(tmp_path, lambda n, row: {**row, "split": words[int(row["group"][1:]) // 2 % 4]})
    document = run(dataset, tmp_path)
    assert {name[:2] for name in document["roles"]["TEST"]} == {"06", "07", "14", "15", "22", "23"}
    ignored = run(dataset, tmp_path / "b", use_given=False)
    assert ignored["roles"] != document["roles"]


def test_a_group_in_two_given_splits_is_a_leak(tmp_path: Path) -> None:
    dataset = rewritten(tmp_path, lambda n, row: {**row, "split": "test" if n % 3 == 0 else "train"})
    with pytest.raises(
        DataError, match=r"given splits leak: 24 groups of images joined by group lie in two splits, .* \(TEST\) and"
    ):
        run(dataset, tmp_path)
    assert not (tmp_path / "splits.json").exists() and not list(tmp_path.glob("*_set/set.json"))
    run(dataset, tmp_path, use_given=False)


def test_a_chain_through_images_without_a_split_is_a_leak_too(tmp_path: Path) -> None:
    words = {0: "train", 1: "", 2: "test"}
    dataset = rewritten(
        tmp_path,
        lambda n, row: {
            **row,
            "split": words[n % 3],
            "group": row["group"] if n % 3 < 2 else "",
            "source_id": f"s{n // 3}" if n % 3 else "",
        },
    )
    with pytest.raises(DataError, match="joined by all rules together lie in two splits, the first holds 00-0.png"):
        run(dataset, tmp_path)


def test_one_class_in_a_given_split_is_an_error(tmp_path: Path) -> None:
    def given(number: int, row: dict) -> dict:
        group = int(row["group"][1:])
        return {**row, "split": "test" if group % 2 and group > 12 else "train"}

    with pytest.raises(DataError, match="split TEST holds one class only: Roadwork"):
        run(rewritten(tmp_path, given), tmp_path)


def test_a_class_with_too_few_groups_is_named(tmp_path: Path) -> None:
    dataset = rewritten(
        tmp_path, lambda n, row: {**row, "group": "one" if row["label"] == "Roadwork" else row["group"]}
    )
    with pytest.raises(DataError, match="class Roadwork has 1 groups, 4 splits need at least one each"):
        run(dataset, tmp_path)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    dataset = ingested(tmp_path)
    first, second, other = (json.dumps(run(dataset, tmp_path / f"{i}", seed=seed)) for i, seed in enumerate((1, 1, 2)))
    assert first == second != other


@pytest.mark.slow
def test_real_drives_stay_whole(real_data: Path, tmp_path: Path) -> None:
    document = run(ingest(real_data / "roadwork-real", tmp_path, resize_shorter_side=64), tmp_path / "a")
    role_of = {name: role for role in ROLES for name in document["roles"][role]}
    for prefix, frames in (("images/camvid_0001TP", 62), ("images/camvid_0006R0", 101), ("images/camvid_0016E5", 305)):
        names = [name for name in role_of if name.startswith(prefix)]
        assert len(names) == frames and len({role_of[name] for name in names}) == 1


def in_splits(document: dict) -> set[str]:
    return {name for role in ROLES for name in document["roles"][role]}


@pytest.mark.slow
def test_neither_the_order_of_rows_nor_of_shards_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes of splits.json from a shuffled manifest, and from a dataset of many shards."""
    import csv
    import random

    first = run(rewritten(tmp_path / "a", lambda n, row: row), tmp_path / "a")
    root = write_images(tmp_path / "b" / "source")
    rows = list(csv.DictReader((root / "manifest.csv").read_text().splitlines()))
    random.Random(0).shuffle(rows)
    write_manifest(root, rows)
    monkeypatch.setattr(ShardWriter.__init__, "__defaults__", (20_000,))
    paths = ingest(root, tmp_path / "b")
    assert len(list(Path(paths["images"]).glob("*.arrow"))) > 1
    assert first["roles"]["TEST"] and run(paths, tmp_path / "b") == first
    assert (tmp_path / "a" / "splits.json").read_bytes() == (tmp_path / "b" / "splits.json").read_bytes()


@pytest.mark.slow
def test_another_layout_of_the_same_images_gets_the_same_splits_and_content_fingerprint(tmp_path: Path) -> None:
    """A manifest, and a folder for each class with other names."""
    import csv
    import shutil

    root = write_images(tmp_path / "source", groups=24, frames=1)
    rows = list(csv.DictReader((root / "manifest.csv").read_text().splitlines()))
    names = {}
    for number, row in enumerate(rows):
        target = tmp_path / "folders" / row["label"] / f"{(number * 7) % 24:02d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / row["image"], target)
        names[f"{row['label']}/{target.name}"] = row["image"]
    manifest = run(ingest(root, tmp_path / "a"), tmp_path / "a")
    folders = run(ingest(tmp_path / "folders", tmp_path / "b"), tmp_path / "b")
    assert folders["content_fingerprint"] == manifest["content_fingerprint"]
    assert folders["dataset_fingerprint"] != manifest["dataset_fingerprint"]
    for role in ROLES:
        assert {names[name] for name in folders["roles"][role]} == set(manifest["roles"][role])


def test_roles_of_an_earlier_division_are_kept_when_images_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(ingested(tmp_path / "a", groups=24, frames=1), tmp_path / "a")
    paths = ingested(tmp_path / "b", groups=32, frames=1)
    second = run(paths, tmp_path / "b", previous=str(tmp_path / "a"), seed=3)
    for role in ROLES:
        assert set(first["roles"][role]) == {name for name in second["roles"][role] if int(name[:2]) < 24}
    assert second["previous"]["kept"] == 24 and second["previous"]["new"] == 8
    assert "24 images keep their role of split.previous, 8 are new" in capsys.readouterr().out
    assert set(open_set(tmp_path / "b" / "test_set", "TEST").ids) == set(second["roles"]["TEST"])


def test_a_child_of_an_image_follows_it(tmp_path: Path) -> None:
    """Frame 2 of every drive carries no group but names frame 0 as its source."""

    def child(number: int, row: dict) -> dict:
        source = f"./{row['image'][:3]}0.png" if number % 3 == 2 else ""
        return {**row, "group": "" if number % 3 == 2 else row["group"], "source_id": source}

    document = run(rewritten(tmp_path, child), tmp_path)
    assert len(set(document["groups"].values())) == 24 and document["links"]["source_id"] == 24


def test_synthetic_images_are_left_out_of_val_calib_and_test_and_counted(tmp_path: Path) -> None:
    synthetic = {f"{group:02d}-1.png" for group in range(24)}
    dataset = rewritten(tmp_path, lambda n, row: {**row, "is_synthetic": str(row["image"] in synthetic).lower()})
    document = run(dataset, tmp_path)
    roles = {role: set(document["roles"][role]) for role in ROLES}
    assert not (roles["VAL_CALIB"] | roles["TEST"]) & synthetic and roles["TRAIN"] & synthetic
    assert set(document["left_out"]) == synthetic - roles["TRAIN"] - roles["VAL_SELECT"]
    assert set(document["left_out"].values()) == {"synthetic"}
    assert in_splits(document) | set(document["left_out"]) == set(document["groups"])
    assert f"{len(document['left_out'])} synthetic images of groups in VAL_CALIB and TEST" in document["warnings"][0]
    assert sum(document["ratios"]["achieved"].values()) == pytest.approx(1)
    assert set(open_set(tmp_path / "test_set", "TEST").ids) == roles["TEST"]


def test_look_alikes_across_given_splits_are_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture of each drive of TRAIN stands in another given split, saved anew."""
    from PIL import Image

    root = write_images(tmp_path / "source", groups=24, frames=1)
    words = ["train", "val_select", "val_calib", "test"]
    rows = [
        {
            "image": f"{group:02d}-0.png",
            "label": "Roadwork" if group % 2 else "None",
            "split": words[group // 2 % 4],
        }
        for group in range(24)
    ]
    for group in range(0, 24, 8):
        Image.open(root / f"{group:02d}-0.png").save(root / f"{group:02d}-again.jpg", quality=90)
        rows.append({"image": f"{group:02d}-again.jpg", "label": "None", "split": "test"})
    write_manifest(root, rows)
    document = run(ingest(root, tmp_path), tmp_path)
    assert document["near_duplicates_across_given_splits"] == 3 and document["near_duplicates_counted_exactly"]
    listed = {tuple(pair[:4]) for pair in document["near_duplicate_pairs"]}
    assert listed == {(f"{g:02d}-0.png", "TRAIN", f"{g:02d}-again.jpg", "TEST") for g in (0, 8, 16)}
    assert all(0 <= pair[4] <= 6 for pair in document["near_duplicate_pairs"])
    assert document["warnings"][0].startswith("Drives cannot be told apart in 27 of 27 images (100%)")
    assert document["warnings"][1].startswith("3 pairs of images in different given splits show the same")
    assert "warning: 3 pairs" in capsys.readouterr().out


def test_a_giant_group_is_said_with_its_rule_and_named_when_no_division_exists(tmp_path: Path) -> None:
    def one_place(number: int, row: dict) -> dict:
        far = int(row["group"][1:]) >= 14
        return {**row, "lat": 1 if not far else 48 + number / 10, "lon": 1 if not far else 11}

    dataset = rewritten(tmp_path, one_place)
    document = run(dataset, tmp_path)
    assert document["largest_group"]["images"] == 42 and document["largest_group"]["rule"] == "place"
    message = (
        r"One group holds 42 images, 58% of all, most of them joined by place \(split.gps_radius_m\), first 00-0.png"
    )
    assert re.match(message, document["warnings"][0])
    with pytest.raises(DataError, match=r"min_per_class.*; one group holds 42 images, 58% of all, most of them"):
        run(dataset, tmp_path / "b", min_per_class=13)


def test_images_that_name_no_drive_are_said_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = run(rewritten(tmp_path, lambda n, row: {**row, "group": "" if n < 12 else row["group"]}), tmp_path)
    assert document["warnings"][0].startswith("Drives cannot be told apart in 12 of 72 images (17%): they name neither")
    split_lines = capsys.readouterr().out.split("rejected, classes", 1)[1].splitlines()[1:]
    assert split_lines[0].startswith("warning: Drives cannot be told apart in 12 of 72 images")


def test_frames_of_one_drive_by_time_never_cross_splits(tmp_path: Path) -> None:
    """Nothing but times, a second apart within a drive: the switch shows that they alone join."""

    def timed(number: int, row: dict) -> dict:
        name = f"{number * 7919 % 1009:04x}.png"
        return {**row, "group": "", "captured_at": f"2025-03-01T{number // 3:02d}:00:0{number % 3}Z", "image": name}

    root = write_images(tmp_path / "source")
    rows = list(csv.DictReader((root / "manifest.csv").read_text().splitlines()))
    for number, row in enumerate(rows):
        (root / row["image"]).rename(root / timed(number, row)["image"])
    write_manifest(root, [timed(number, row) for number, row in enumerate(rows)])
    paths = ingest(root, tmp_path)
    assert len(set(run(paths, tmp_path / "off", drive_gap_s=0, near_duplicate_bits=-1)["groups"].values())) == 72
    document = run(paths, tmp_path, near_duplicate_bits=-1)
    assert len(set(document["groups"].values())) == 24 and document["links"]["time"] == 48
    assert not any("Drives cannot" in line for line in document["warnings"])


@pytest.mark.parametrize("images", [1, 2, 3])
def test_sets_of_one_or_two_images_are_refused_in_a_sentence(tmp_path: Path, images: int) -> None:
    root = write_images(tmp_path / "source", groups=images, frames=1)
    names: dict[str, Any] = {"class_names": ["None", "Roadwork"]}
    if images == 1:
        with pytest.raises(DataError):
            ingest(root, tmp_path, **names)
        return
    paths = ingest(root, tmp_path, **names)
    with pytest.raises(DataError, match="class None has . groups, 4 splits need at least one each"):
        run(paths, tmp_path)
