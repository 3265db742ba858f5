from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from natix_lib.errors import DataError
from tests.data.layouts import files, images, lines, opened, reading


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
    "word", ["nan", "NaN", "N/A", "n.a.", "\\N", "NULL", "none", "unknown", "-", "#REF!", "#VALUE!"]
)
def test_a_word_for_no_value_is_no_place(tmp_path: Path, word: str) -> None:
    rows = opened(manifest(tmp_path, f"image,label,lat,lon\na.jpg,x,{word},{word}\nb.jpg,x,-1,-1\n")).rows
    assert [(row.lat, row.lon) for row in rows] == [(None, None), (-1.0, -1.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label,lat,lon\na.jpg,x,91,0\n", r"manifest.csv row 2: lat must be a number within \+-90, got '91'"),
        ("image,label,lat,lon\na.jpg,x,inf,0\n", r"lat must be a number within \+-90, got 'inf'"),
        ("image,label,lat,lon\na.jpg,x,north,0\n", r"lat must be a number within \+-90, got 'north'"),
        ("image,label,lat,lon\na.jpg,x,1,\n", "lat and lon must both be given"),
        ("image,label,lat,lon\na.jpg,x,1,nan\n", "lat and lon must both be given"),
        ("image,label,split\na.jpg,x,fold1\n", "row 2: split role must be one of TRAIN, .* got 'fold1'"),
        ("image,label,is_synthetic\na.jpg,x,maybe\n", "is_synthetic must be true or false, got 'maybe'"),
    ],
)
def test_a_fact_that_breaks_its_rule_names_the_row(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(manifest(tmp_path, text))


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.data_root .* is empty"):
        opened(tmp_path)


def test_a_folder_of_other_things_says_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        DataError, match=r"no manifest.csv, no manifest.parquet, no .parquet file and no folder of images"
    ):
        opened(tmp_path)


def test_hidden_files_alone_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it holds no file but .DS_Store, __MACOSX"):
        opened(files(tmp_path, ".DS_Store", "__MACOSX/a.jpg"))


def test_a_manifest_reads_what_it_names_and_counts_the_other_images(tmp_path: Path) -> None:
    root = files(images(tmp_path, "images", count=5), "manifest.csv", "LICENSE", text="image,label\nimages/3.jpg,x\n")
    source = opened(root)
    assert reading(source) == {"images/3.jpg": ("x", None)}
    assert source.warnings == [
        "left out 4 images that no row names: images/0.jpg, images/1.jpg, images/2.jpg and 1 more",
        "left out 1 files without an image's suffix (none 1): LICENSE",
    ]


@pytest.mark.parametrize("name", ["test_p", "train"])
def test_the_name_of_data_root_gives_no_role_to_parquet(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    pq.write_table(pa.table({"image": [{"bytes": b"x"}], "label": ["a"]}), tmp_path / name / "part-0.parquet")
    assert reading(opened(tmp_path / name)) == {"part-0.parquet#0": ("a", None)}


def test_parquet_with_images_is_read_beside_a_loose_picture_and_a_table_of_paths_is_a_manifest(tmp_path: Path) -> None:
    root = images(tmp_path / "a", "assets", count=1)
    pq.write_table(pa.table({"image": [{"bytes": b"y"}], "label": ["a"]}), root / "x.parquet")
    source = opened(root)
    assert reading(source) == {"x.parquet#0": ("a", None)} and "1 images that no row names: assets" in lines(
        source.warnings
    )
    root = images(tmp_path / "b", "images", count=1)
    pq.write_table(pa.table({"image": ["0.jpg"], "label": ["a"]}), root / "labels.parquet")
    assert reading(opened(root)) == {"images/0.jpg": ("a", None)}
    root = images(tmp_path / "c", "None", "Roadwork")
    pq.write_table(pa.table({"image": ["None/0.jpg"], "label": ["a"]}), root / "labels.parquet")
    with pytest.raises(DataError, match="labels.parquet beside folders None, Roadwork may list the images"):
        opened(root)


@pytest.mark.parametrize("other", ["labels.csv", "MANIFEST.csv", "Manifest.JSON"])
def test_metadata_beside_another_table_that_names_images_is_refused_as_two_manifests(
    tmp_path: Path, other: str
) -> None:
    root = images(tmp_path, "a", "b")
    files(root, "metadata.csv", other, text="file_name,label\na/0.jpg,x\nb/0.jpg,y\n")
    with pytest.raises(DataError, match=r"has .*metadata.csv.*: name one as data.manifest"):
        opened(root)
    assert len(opened(root, manifest="metadata.csv").rows) == 2


def test_metadata_beside_a_table_of_other_things_is_read(tmp_path: Path) -> None:
    root = files(images(tmp_path, "a", "b"), "metadata.csv", text="file_name,label\na/0.jpg,x\nb/0.jpg,y\n")
    files(root, "cameras.csv", text="camera,maker\n1,Acme\n")
    assert len(opened(root).rows) == 2


@pytest.mark.parametrize("name", ["MANIFEST.csv", "Manifest.Csv", "METADATA.CSV"])
def test_a_manifest_is_known_in_any_case(tmp_path: Path, name: str) -> None:
    root = files(images(tmp_path, "a", "b"), name, text="image,label\na/0.jpg,x\nb/0.jpg,y\n")
    assert reading(opened(root)) == {"a/0.jpg": ("x", None), "b/0.jpg": ("y", None)}


@pytest.mark.parametrize("image", ["photo (1).jpg", "a=b.jpg", "two words.jpg", "x,y.jpg", "(front) a.jpg"])
def test_a_table_is_seen_whatever_the_names_of_its_images_hold(tmp_path: Path, image: str) -> None:
    root = files(tmp_path, f"None/{image}", "Roadwork/0.jpg")
    files(root, "labels.csv", text=f'file,class\n"None/{image}",Roadwork\n')
    with pytest.raises(DataError, match="labels.csv beside folders None, Roadwork may list the images"):
        opened(root)


def test_a_table_is_seen_after_a_long_preface(tmp_path: Path) -> None:
    preface = "# of another set\n" * 10_000
    root = files(images(tmp_path, "None", "Roadwork"), "labels.csv", text=f"{preface}file,class\nNone/0.jpg,Roadwork\n")
    with pytest.raises(DataError, match="labels.csv beside folders None, Roadwork may list the images"):
        opened(root)


@pytest.mark.parametrize("name", ["meta/labels.csv", "splits/train.txt", "None/manifest.csv", "meta/x.parquet"])
def test_a_table_below_the_top_that_names_images_is_said(tmp_path: Path, name: str) -> None:
    root = files(images(tmp_path, "None", "Roadwork"), name, text="image,label\nNone/0.jpg,Roadwork\n")
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"path": ["None/0.jpg"], "label": ["a"]}), root / name)
    source = opened(root)
    assert f"{name} may list the images of the set and is not read" in lines(source.warnings)
    assert len(source.rows) == 4


def test_files_about_single_images_and_tables_of_other_things_are_not_said(tmp_path: Path) -> None:
    root = files(images(tmp_path, "None", "Roadwork"), "None/0.json", text='{"imagePath": "0.jpg"}')
    files(root, "meta/cameras.csv", text="camera,maker\n1,Acme\n")
    files(root, "meta/others.csv", text="image\n10.jpg\nfar-0.jpg\n")
    assert "may list the images" not in lines(opened(root).warnings)


def test_a_whole_number_of_any_length_and_minus_zero_are_groups(tmp_path: Path) -> None:
    rows = opened(manifest(tmp_path, f"image,label,group\na.jpg,x,{'7' * 5000}.0\nb.jpg,y,-0.0\nc.jpg,y,-7.0\n")).rows
    assert [row.group for row in rows] == ["7" * 5000, "0", "-7"]


def test_a_file_that_is_larger_than_any_image_is_never_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(2**40)
    (image,) = opened(manifest(tmp_path, "image,label\na.jpg,x\n")).images()
    assert str(image) == "1099511627776 bytes are more than an image may have, 1073741824"
