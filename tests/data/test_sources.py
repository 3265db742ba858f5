import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from natix_lib.config import DataSource
from natix_lib.data.sources import Source, open_source
from natix_lib.errors import DataError


def opened(root: Path, **settings: object) -> Source:
    return open_source(root, DataSource(data_root=str(root), **settings))


def manifest(root: Path, text: str) -> Path:
    (root / "manifest.csv").write_text(text)
    return root


def test_none_is_a_class_and_never_a_missing_value(tmp_path: Path) -> None:
    rows = opened(manifest(tmp_path, "image,label,group,weather\na.jpg,None,NA,nan\nb.jpg,Roadwork,,\n")).rows
    assert [row.label for row in rows] == ["None", "Roadwork"]
    assert (rows[0].group, rows[0].tags) == ("NA", {"weather": "nan"})
    assert (rows[1].group, rows[1].tags) == (None, {"weather": None})


def test_all_facts_of_a_manifest_are_read(tmp_path: Path) -> None:
    text = (
        "image,label,group,source_id,lat,lon,captured_at,split,is_synthetic,city\n"
        "a.jpg,None,d1,s1,48.1,11.5,2025-01-01,val_test,yes,Arden\n"
    )
    (row,) = opened(manifest(tmp_path, text)).rows
    assert (row.group, row.source_id, row.lat, row.lon) == ("d1", "s1", 48.1, 11.5)
    assert (row.captured_at, row.given_split, row.is_synthetic) == ("2025-01-01", "TEST", True)
    assert row.tags == {"city": "Arden"}


def test_columns_can_have_other_names(tmp_path: Path) -> None:
    root = manifest(tmp_path, "file,class\na.jpg,None\n")
    assert opened(root, columns={"image": "file", "label": "class"}).rows[0].id == "a.jpg"
    with pytest.raises(
        DataError, match=r"manifest.csv has no column 'image' \(data.columns.image\); it has file, class"
    ):
        opened(root)


def test_a_parquet_manifest_equals_a_csv_one(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image": ["a.jpg"], "label": ["None"], "lat": [1.5], "lon": [2.5]}), tmp_path / "manifest.parquet"
    )
    (row,) = opened(tmp_path).rows
    assert (row.id, row.label, row.lat) == ("a.jpg", "None", 1.5)


def test_images_come_in_the_order_of_the_rows_and_a_missing_one_is_said(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"two")
    images = list(opened(manifest(tmp_path, "image,label\na.jpg,x\nb.jpg,y\n")).images())
    assert str(images[0]) == "no such file" and images[1] == b"two"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\n../a.jpg,x\n", r"must be a path below data.data_root, got '../a.jpg'"),
        ("image,label\n/etc/a.jpg,x\n", "must be a path below data.data_root"),
        ("image,label\na.jpg,x\na.jpg,y\n", "image a.jpg is listed twice"),
        ("image,label,lat,lon\na.jpg,x,91,0\n", r"manifest.csv row 2: lat must be a number within \+-90, got '91'"),
        ("image,label,lat,lon\na.jpg,x,1,\n", "lat and lon must both be given"),
        ("image,label,split\na.jpg,x,holdout\n", "row 2: split role must be one of TRAIN, .* got 'holdout'"),
        ("image,label,is_synthetic\na.jpg,x,maybe\n", "is_synthetic must be true or false, got 'maybe'"),
        ("image,label\n", "lists no image"),
    ],
)
def test_a_fact_that_breaks_its_rule_names_the_row(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(manifest(tmp_path, text))


def test_hugging_face_parquet_gives_images_labels_names_tags_and_splits(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["None", "Roadwork"], "_type": "ClassLabel"}}
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
            ("city", pa.string()),
            ("video", pa.struct([("id", pa.int64())])),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    for name, label in (("train-00000-of-00001", 0), ("test", 1)):
        rows = [{"image": {"bytes": name.encode(), "path": None}, "label": label, "city": "Arden", "video": {"id": 1}}]
        pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / f"{name}.parquet")
    source = opened(tmp_path)
    assert source.class_names == ["None", "Roadwork"]
    assert [(row.id, row.given_split, row.label, row.tags) for row in source.rows] == [
        ("test.parquet#0", "TEST", 1, {"city": "Arden"}),
        ("train-00000-of-00001.parquet#0", "TRAIN", 0, {"city": "Arden"}),
    ]
    assert list(source.images()) == [b"test", b"train-00000-of-00001"]


def test_parquet_of_paths_is_told_from_parquet_of_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["a.jpg"], "label": ["x"]}), tmp_path / "part.parquet")
    with pytest.raises(DataError, match="column image must hold image bytes, it is string; set data.format: manifest"):
        opened(tmp_path)


def test_a_folder_for_each_class_is_read_with_a_warning(tmp_path: Path, picture: Callable[..., Image.Image]) -> None:
    for name in ("None", "Roadwork"):
        (tmp_path / name).mkdir()
        picture().save(tmp_path / name / "a.png")
    source = opened(tmp_path)
    assert [(row.id, row.label) for row in source.rows] == [("None/a.png", "None"), ("Roadwork/a.png", "Roadwork")]
    assert "carries no groups" in source.warning


def test_folders_named_by_split_give_the_splits(tmp_path: Path, picture: Callable[..., Image.Image]) -> None:
    for name in ("train/None", "validation/None", "test/Roadwork"):
        (tmp_path / name).mkdir(parents=True)
        picture().save(tmp_path / name / "a.png")
    assert {row.id: (row.given_split, row.label) for row in opened(tmp_path).rows} == {
        "test/Roadwork/a.png": ("TEST", "Roadwork"),
        "train/None/a.png": ("TRAIN", "None"),
        "validation/None/a.png": ("VAL_SELECT", "None"),
    }


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.data_root .* is empty"):
        opened(tmp_path)


def test_a_folder_of_other_things_says_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        DataError, match=r"no manifest.csv, no manifest.parquet, no .parquet file and no folder of images"
    ):
        opened(tmp_path)
