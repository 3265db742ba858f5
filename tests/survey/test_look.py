"""What is seen of a set, against how the test made it."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from natix_lib.config import DataSource, Split
from natix_lib.contracts import ROLES
from natix_lib.errors import DataError, StorageError
from natix_lib.survey import look as module
from natix_lib.survey.look import Seen, look
from tests.cloud_storage import BUCKET, Cloud
from tests.data.layouts import files
from tests.street_sets import write_images


def pictures(root: Path, *folders: str, count: int = 8, size: tuple[int, int] = (40, 30)) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", size, (number, 0, 0)).save(root / folder / f"{number}.jpg")
    return root


def seen(root: Path | str, scratch: Path, **data: Any) -> Seen:
    scratch.mkdir(exist_ok=True)
    return look(DataSource(data_root=str(root), **data), Split(), None, scratch)


def counted(found: Seen) -> dict[str, int]:
    return dict(zip(found.class_names, found.counts, strict=True))


def test_a_folder_for_each_class_is_counted_and_every_picture_is_a_group_of_its_own(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", "None", "Roadwork", count=10)
    pictures(root, "None", count=14)
    found = seen(root, tmp_path / "scratch")
    assert counted(found) == {"None": 14, "Roadwork": 10}
    assert found.layout == "in a folder for each class" and found.positive == ["Roadwork"]
    assert Counter(found.sizes) == {(40, 30): 24} and not found.unread
    assert found.division and found.division.group_count == 24


def test_groups_are_counted_as_the_columns_join_them(tmp_path: Path) -> None:
    found = seen(write_images(tmp_path / "set", groups=24, frames=3), tmp_path / "scratch")
    assert counted(found) == {"None": 36, "Roadwork": 36}
    assert found.division and found.division.group_count == 24
    assert {row.tags["camera"] for row in found.rows} == {"front", "rear"}


def test_splits_that_folders_give_are_kept(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", "train/a", "train/b", "test/a", "test/b")
    found = seen(root, tmp_path / "scratch")
    assert Counter(row.given_split for row in found.rows) == {"TRAIN": 16, "TEST": 16}
    assert found.layout == "in a folder for each class, below folders of splits"
    assert found.division and (found.division.roles == ROLES.index("TEST")).sum() == 16


def test_parquet_is_counted_by_its_rows(tmp_path: Path, real_data: Path) -> None:
    import pyarrow.parquet as pq

    folder = real_data / "cifar10-part"
    rows = sum(pq.read_metadata(path).num_rows for path in folder.rglob("*.parquet"))
    found = seen(folder, tmp_path / "scratch")
    assert len(found.rows) == rows and len(found.class_names) == 10
    assert len(found.sizes) == module.SAMPLE and set(found.sizes) == {(32, 32)}


def test_pictures_that_are_not_there_or_cannot_be_read_are_told(tmp_path: Path) -> None:
    root = write_images(tmp_path / "set")
    (root / "00-0.png").unlink()
    (root / "01-0.png").write_bytes(b"no picture")
    found = seen(root, tmp_path / "scratch")
    assert found.unread == [("00-0.png", "no such file"), ("01-0.png", "no image format is known for it")]
    assert found.missing == 1


def test_the_sample_of_sides_is_spread_over_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", 4)
    root = pictures(tmp_path / "set", "a", count=20)
    pictures(root, "b", count=20, size=(64, 48))
    assert Counter(seen(root, tmp_path / "scratch").sizes) == {(40, 30): 2, (64, 48): 2}


def test_a_picture_that_is_turned_has_the_sides_that_it_is_seen_with(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", "a", "b", count=4)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(root / "a" / "0.jpg", exif=exif)
    assert Counter(seen(root, tmp_path / "scratch").sizes) == {(40, 30): 7, (30, 40): 1}


def test_what_split_would_refuse_is_told_in_its_own_words(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", "a", count=9)
    pictures(root, "b", count=3)
    found = seen(root, tmp_path / "scratch")
    assert found.division is None
    assert found.refusal.startswith("class b has 3 groups, 4 splits need at least one each")


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    root = write_images(tmp_path / "set")
    rows = list(csv.DictReader((root / "manifest.csv").read_text().splitlines()))
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([row | ({"label": ""} if number < 5 else {}) for number, row in enumerate(rows)])
    for row in rows[:5]:
        (root / row["image"]).unlink()
    found = seen(root, tmp_path / "scratch")
    assert (found.unlabelled, len(found.rows)) == (5, len(rows) - 5) and not found.unread


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "is empty"),
        (("notes.doc",), "no folder of images for each class; it holds 1 files"),
        (("0.jpg", "1.jpg"), "2 images lie directly in data.data_root.* so no folder names their class"),
        (("a/0.jpg", "a/1.jpg"), "all 2 images lie in one folder, a, so there is no second class"),
        (("a/x/0.jpg", "b/x/0.jpg"), "folders x repeat below a, b, so either may be the classes"),
    ],
)
def test_a_folder_that_tells_no_classes_is_refused_in_one_line(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    (tmp_path / "set").mkdir()
    files(tmp_path / "set", *names)
    with pytest.raises(DataError, match=message):
        seen(tmp_path / "set", tmp_path / "scratch")


def test_of_a_bucket_only_tables_and_some_pictures_are_fetched(
    tmp_path: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLE_REMOTE", 3)
    root = write_images(tmp_path / "set")
    cloud.put({f"set/{path.name}": path.read_bytes() for path in root.iterdir()})
    found = seen(f"gs://{BUCKET}/set", tmp_path / "scratch")
    assert counted(found) == {"None": 36, "Roadwork": 36} and found.sizes == [(56, 40)] * 3
    held = [path for path in (tmp_path / "scratch" / "source").iterdir() if path.stat().st_size]
    assert len(held) == 1 + 3  # the manifest and the sample


def test_a_bucket_with_more_tables_than_can_be_fetched_is_refused(
    tmp_path: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_FETCHED", 10)
    cloud.put({"set/train.parquet": b"x" * 11})
    with pytest.raises(DataError, match=r"holds tables and Parquet files of more than .* such as train\.parquet"):
        seen(f"gs://{BUCKET}/set", tmp_path / "scratch")


def test_a_prefix_that_holds_nothing_is_refused(tmp_path: Path, cloud: Cloud) -> None:
    with pytest.raises(StorageError, match="holds no object"):
        seen(f"gs://{BUCKET}/nothing", tmp_path / "scratch")
