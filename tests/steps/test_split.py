import json
from pathlib import Path

import pytest

from natix_lib.contracts import ROLES
from natix_lib.errors import DataError
from natix_lib.files import read_json
from natix_lib.steps import ingest, split
from tests.street_sets import ingest_settings, ingested, write_images, write_manifest


def run(dataset: Path, out: Path, **settings: object) -> dict:
    split.run({"split": settings}, str(dataset), str(out))
    return read_json(out)


def rewritten(tmp_path: Path, change: object, **sizes: int) -> Path:
    """A dataset whose manifest rows were changed."""
    import csv

    root = write_images(tmp_path / "source", **sizes)
    rows = list(csv.DictReader((root / "manifest.csv").read_text().splitlines()))
    write_manifest(root, [change(number, row) for number, row in enumerate(rows)])
    ingest.run(ingest_settings(root), str(tmp_path / "dataset"))
    return tmp_path / "dataset"


def test_groups_never_cross_and_every_class_is_everywhere(tmp_path: Path) -> None:
    document = run(ingested(tmp_path), tmp_path / "splits.json")
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

    from natix_lib.data.synthetic import draw_dataset

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
    ingest.run(ingest_settings(tmp_path / "source"), str(tmp_path / "dataset"))
    document = run(tmp_path / "dataset", tmp_path / "splits.json")
    role_of = {name: role for role in ROLES for name in document["roles"][role]}
    assert all(role_of[f"{n:02d}-95.jpg"] == role_of[f"{n:02d}-40.jpg"] for n in range(30))
    switched_off = run(tmp_path / "dataset", tmp_path / "other.json", near_duplicate_bits=-1)
    assert len(set(switched_off["groups"].values())) == 60


def test_places_within_the_radius_never_cross_splits(tmp_path: Path) -> None:
    """Two drives at each place, two metres apart."""

    def located(number: int, row: dict) -> dict:
        group = int(row["group"][1:])
        return {**row, "lat": 48 + 0.01 * (group // 2) + 1e-5 * (group % 2), "lon": 11}

    dataset = rewritten(tmp_path, located, groups=48, frames=1)
    document = run(dataset, tmp_path / "splits.json")
    assert len(set(document["groups"].values())) == 24 and document["links"]["place"] == 24
    assert len(set(run(dataset, tmp_path / "b.json", gps_radius_m=1.0)["groups"].values())) == 48


def test_given_splits_are_honoured(tmp_path: Path) -> None:
    words = ["train", "val_select", "val_calib", "val_test"]
    dataset = rewritten(tmp_path, lambda n, row: {**row, "split": words[int(row["group"][1:]) // 2 % 4]})
    document = run(dataset, tmp_path / "splits.json")
    assert {name[:2] for name in document["roles"]["TEST"]} == {"06", "07", "14", "15", "22", "23"}
    ignored = run(dataset, tmp_path / "b.json", use_given=False)
    assert ignored["roles"] != document["roles"]


def test_a_group_in_two_given_splits_is_a_leak(tmp_path: Path) -> None:
    dataset = rewritten(tmp_path, lambda n, row: {**row, "split": "test" if n % 3 == 0 else "train"})
    with pytest.raises(DataError, match=r"given splits leak: 24 pairs of one group lie in two splits, .* \(TEST\) and"):
        run(dataset, tmp_path / "splits.json")
    assert not (tmp_path / "splits.json").exists()
    run(dataset, tmp_path / "splits.json", use_given=False)


def test_a_chain_through_images_without_a_split_is_a_leak_too(tmp_path: Path) -> None:
    words = {0: "train", 1: "", 2: "test"}
    dataset = rewritten(
        tmp_path, lambda n, row: {**row, "split": words[n % 3], "source_id": f"s{n // 3}" if n % 3 else ""}
    )
    with pytest.raises(DataError, match="given splits leak"):
        run(dataset, tmp_path / "splits.json")


def test_one_class_in_a_given_split_is_an_error(tmp_path: Path) -> None:
    def given(number: int, row: dict) -> dict:
        group = int(row["group"][1:])
        return {**row, "split": "test" if group % 2 and group > 12 else "train"}

    with pytest.raises(DataError, match="split TEST holds one class only: Roadwork"):
        run(rewritten(tmp_path, given), tmp_path / "splits.json")


def test_a_class_with_too_few_groups_is_named(tmp_path: Path) -> None:
    dataset = rewritten(
        tmp_path, lambda n, row: {**row, "group": "one" if row["label"] == "Roadwork" else row["group"]}
    )
    with pytest.raises(DataError, match="class Roadwork has 1 groups, 4 splits need at least one each"):
        run(dataset, tmp_path / "splits.json")


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    dataset = ingested(tmp_path)
    first, second, other = (
        json.dumps(run(dataset, tmp_path / f"{i}.json", seed=seed)) for i, seed in enumerate((1, 1, 2))
    )
    assert first == second != other


def test_real_drives_stay_whole(real_data: Path, tmp_path: Path) -> None:
    ingest.run(ingest_settings(real_data / "roadwork-real", resize_shorter_side=64), str(tmp_path / "dataset"))
    document = run(tmp_path / "dataset", tmp_path / "splits.json")
    role_of = {name: role for role in ROLES for name in document["roles"][role]}
    for prefix, frames in (("images/camvid_0001TP", 62), ("images/camvid_0006R0", 101), ("images/camvid_0016E5", 305)):
        names = [name for name in role_of if name.startswith(prefix)]
        assert len(names) == frames and len({role_of[name] for name in names}) == 1
