import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from natix_lib.contracts import TEST, TRAIN, VAL_SELECT
from natix_lib.errors import DataError
from tests.data.layouts import files, images, lines, opened, reading

SPLITS = {"train": TRAIN, "validation": VAL_SELECT, "test": TEST}
PLAIN = "image,label,city\na.jpg,None,Arden\nb.jpg,Roadwork,Bree\n"


def rows_of(root: Path, **settings: object) -> list[tuple[str, object, dict]]:
    return [(row.id, row.label, row.tags) for row in opened(root, **settings).rows]


EXPECTED = [("a.jpg", "None", {"city": "Arden"}), ("b.jpg", "Roadwork", {"city": "Bree"})]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.csv", PLAIN.encode()),
        ("manifest.csv", PLAIN.encode("utf-8-sig")),
        ("manifest.csv", PLAIN.encode("utf-16")),
        ("manifest.csv", PLAIN.replace("\n", "\r\n").encode()),
        ("manifest.csv", PLAIN.replace("\n", "\r").encode()),
        ("manifest.csv", PLAIN.replace(",", ";").encode()),
        ("manifest.csv", PLAIN.replace(",", "\t").encode()),
        ("manifest.csv", PLAIN.replace(",", " , ").encode()),
        ("manifest.csv", PLAIN.replace("\n", ",\n").encode()),
        ("manifest.csv", b"image,label,city\na.jpg,None,Arden,\nb.jpg,Roadwork,Bree,\n"),
        ("manifest.csv", b'image, "label","city"\n\n"a.jpg", "None",Arden\n,,\nb.jpg,Roadwork,"Bree"\n\n'),
        ("manifest.tsv", PLAIN.replace(",", "\t").encode()),
        ("manifest.csv.gz", gzip.compress(PLAIN.encode(), mtime=0)),
        ("manifest.tsv.gz", gzip.compress(PLAIN.replace(",", "\t").encode(), mtime=0)),
        ("manifest.jsonl", b'{"image":"a.jpg","label":"None","city":"Arden"}\n\n'
                           b'{"image":"b.jpg","label":"Roadwork","city":"Bree"}'),
        ("manifest.json", json.dumps({"a.jpg": {"label": "None", "city": "Arden"},
                                      "b.jpg": {"label": "Roadwork", "city": "Bree"}}).encode()),
    ],
)  # fmt: skip
def test_every_way_to_write_a_table_gives_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert rows_of(tmp_path) == EXPECTED


def test_an_index_that_pandas_wrote_is_a_column_without_a_name(tmp_path: Path) -> None:
    files(tmp_path, "manifest.csv", text=",image,label\n0,a.jpg,x\n1,b.jpg,y\n")
    assert rows_of(tmp_path) == [("a.jpg", "x", {"Unnamed: 0": "0"}), ("b.jpg", "y", {"Unnamed: 0": "1"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            PLAIN.replace("Arden", "Žižkov").encode("iso8859-2"),
            r"it is not UTF-8 \(byte 0xae in line 2\): save it as UTF-8",
        ),
        (b"image,label\na.jpg,\0x\n", "it holds NUL bytes"),
        (b"image,label\na.jpg,x,y\n", "manifest.csv row 2 has 3 values, the header has 2 columns"),
        (
            b'image,label\na.jpg,"x\nb.jpg,y\n',
            "manifest.csv cannot be read: the quote that opens in line 2 is never closed",
        ),
        (b"image,label,city,city\na.jpg,x,1,2\n", "manifest.csv has the column 'city' twice"),
        (b"", "manifest.csv is empty"),
        (b"image,label\n", "lists no image"),
        (b"image,label\n,x\n", "manifest.csv row 2: image is empty"),
        (b"image,label\n../a.jpg,x\n", "must be a path below data.data_root, got '../a.jpg'"),
        (b"image,label\n/etc/a.jpg,x\n", "manifest.csv row 2: image must be a path below data.data_root"),
        (b"image,label\nC:\\\\x\\\\a.jpg,x\n", "must be a path below data.data_root"),
        (b"image,label\nimages\\a.jpg,x\n", r"image must be a path with / between its folders, got 'images\\\\a.jpg'"),
        (
            b"image,label\nhttps://x.org/a.jpg,x\n",
            "must be a path below data.data_root, got 'https://x.org/a.jpg'",
        ),
        (b"image,label\ngs://b/a.jpg,x\n", "must be a path below data.data_root, got 'gs://b/a.jpg'"),
        (
            b"image,label\nimages/a.jpg,x\nb.jpg,x\n./images/a.jpg,y\nimages//a.jpg,x\n",
            r"image images/a.jpg is listed twice: manifest.csv row 2 \(label x\) and manifest.csv row 4 \(label y\); "
            "2 rows in all repeat an image",
        ),
    ],
)
def test_a_table_that_cannot_be_read_rightly_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("manifest.json", '{"a.jpg": "x", "a.jpg": "y"}', "the key 'a.jpg' stands twice in one object"),
        ("manifest.json", '{"images": [], "categories": []}', "must be a list of objects with image and label"),
        ("manifest.json", "[" * 100_000, "manifest.json cannot be read"),
        ("manifest.jsonl", '{"image": "a.jpg", "label": "x"}\n[1]\n', "line 2 must be an object, it is list"),
        ("manifest.jsonl", '{"image": "a.jpg", "label": ["x"]}', r"column label \(data.columns.label\) must hold text "
                                                                "or numbers, it is list"),
        ("manifest.jsonl", '{"image": "a.jpg", "label": 0.5}', "column label must hold a class, got the fraction 0.5"),
        ("manifest.jsonl", '{"image": "a.jpg", "label": Infinity}', "got the fraction inf"),
    ],
)  # fmt: skip
def test_json_that_cannot_be_read_rightly_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(files(tmp_path, name, text=text))


def test_groups_of_mixed_types_are_text_and_a_whole_float_is_the_whole_number(tmp_path: Path) -> None:
    records = [("a", 1, 0), ("b", "1", 1.0), ("c", 1.0, "x"), ("d", 1.5, True), ("e", None, "1")]
    text = "\n".join(json.dumps({"image": name, "group": group, "label": label}) for name, group, label in records)
    rows = opened(files(tmp_path, "manifest.jsonl", text=text)).rows
    assert [row.group for row in rows] == ["1", "1", "1", "1.5", None]
    assert [row.label for row in rows] == [0, 1, "x", "True", "1"]


def test_half_a_character_of_json_can_be_stored(tmp_path: Path) -> None:
    text = '{"image": "a.jpg", "label": "x", "group": "\\udfff"}'
    (row,) = opened(files(tmp_path, "manifest.jsonl", text=text)).rows
    assert row.group == r"\udfff" and row.group.encode()


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("at_top", [False, True])
def test_metadata_of_hugging_face_is_read_and_folders_give_the_roles(tmp_path: Path, suffix: str, at_top: bool) -> None:
    images(tmp_path, *SPLITS)
    every = {f"{split}/{number}.jpg": ("None", "Roadwork")[number] for split in SPLITS for number in (0, 1)}
    places = {"": every} if at_top else {
        f"{split}/": {name.removeprefix(f"{split}/"): label for name, label in every.items() if name.startswith(split)}
        for split in SPLITS
    }  # fmt: skip
    for place, names in places.items():
        if suffix == "csv":
            text = "file_name,label\n" + "".join(f"{name},{label}\n" for name, label in names.items())
        else:
            text = "\n".join(json.dumps({"file_name": name, "label": label}) for name, label in names.items())
        files(tmp_path, f"{place}metadata.{suffix}", text=text)
    source = opened(tmp_path)
    assert reading(source) == {name: (label, SPLITS[name.split("/")[0]]) for name, label in every.items()}
    assert source.warnings == [] and list(source.images()) == [b"x"] * 6


def test_metadata_that_leaves_a_folder_out_or_lists_no_images_is_refused(tmp_path: Path) -> None:
    images(tmp_path, "train", "test")
    files(tmp_path, "train/metadata.csv", text="file_name,label\n0.jpg,a\n")
    with pytest.raises(
        DataError, match="folder test holds 2 images, the first is test/0.jpg, and train/metadata.csv names"
    ):
        opened(tmp_path)
    files(tmp_path, "test/metadata.csv", text="file_name,label\n0.jpg,a\n1.jpg,b\n")
    assert opened(tmp_path).warnings == ["left out 1 images that no row names: train/1.jpg"]
    files(tmp_path, "metadata.csv", text="camera,place\n1,2\n")
    with pytest.raises(
        DataError, match="metadata.csv has no column 'file_name'; it has camera, place: name the column as"
    ):
        opened(tmp_path)


def test_metadata_without_labels_names_the_format_of_folders(tmp_path: Path) -> None:
    root = files(images(tmp_path, "None", "Roadwork"), "metadata.csv", text="file_name,caption\nNone/0.jpg,x\n")
    with pytest.raises(
        DataError, match="no column 'label'; it has file_name, caption: .*, or set data.format to folder"
    ):
        opened(root)
    assert len(opened(root, format="folder").rows) == 4


def test_a_manifest_of_images_in_split_folders_says_that_these_give_no_role(tmp_path: Path) -> None:
    root = files(
        images(tmp_path, "train", "test", count=1), "manifest.csv", text="image,label\ntrain/0.jpg,a\ntest/0.jpg,b\n"
    )
    source = opened(root)
    assert reading(source) == {"train/0.jpg": ("a", None), "test/0.jpg": ("b", None)}
    assert "2 of 2 images lie in folders named by a split role, which give none" in lines(source.warnings)
    files(root, "manifest.csv", text="image,label,split\ntrain/0.jpg,a,train\ntest/0.jpg,b,test\n")
    assert opened(root).warnings == []


def test_a_folder_and_a_split_column_that_contradict_are_refused(tmp_path: Path) -> None:
    images(tmp_path, "train", "test")
    files(tmp_path, "metadata.csv", text="file_name,label,split\ntrain/0.jpg,a,train\ntest/0.jpg,a,train\n")
    with pytest.raises(DataError, match="test/0.jpg is TEST by its folder and TRAIN by its split column"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "image,label\n0.jpg,None\n1.jpg,Roadwork\n"),
        ("labels.csv", "image;label\nimages/0.jpg;None\nimages/1.jpg;Roadwork\n"),
        ("labels.json", '{"0.jpg": "None", "1.jpg": "Roadwork"}'),
        ("labels.json", '[{"file_name": "./images/0.jpg", "label": "None"}, {"file_name": "images/1.jpg", '
                        '"label": "Roadwork"}]'),
        ("annotations.jsonl", '{"image": "0.jpg", "label": "None"}\n{"image": "1.jpg", "label": "Roadwork"}'),
    ],
)  # fmt: skip
def test_the_one_table_beside_images_is_read_and_said(tmp_path: Path, name: str, text: str) -> None:
    source = opened(files(images(tmp_path, "images"), name, text=text))
    assert reading(source) == {"images/0.jpg": ("None", None), "images/1.jpg": ("Roadwork", None)}
    assert source.warnings == [f"{name} is read as the manifest"]
    assert list(source.images()) == [b"x", b"x"]


def test_a_table_that_the_config_names_is_read_as_it_is_when_it_is_found(tmp_path: Path) -> None:
    root = files(images(tmp_path, "images"), "labels.csv", text="filename,label\n0.jpg,None\n1.jpg,Roadwork\n")
    source = opened(root, manifest="labels.csv", columns={"image": "filename"})
    assert reading(source) == {"images/0.jpg": ("None", None), "images/1.jpg": ("Roadwork", None)}
    assert source.warnings == [] and list(source.images()) == [b"x", b"x"]


def test_manifest_jsonl_beside_images_is_the_manifest(tmp_path: Path) -> None:
    text = '{"image": "images/0.jpg", "label": "None"}'
    source = opened(files(images(tmp_path, "images"), "manifest.jsonl", text=text))
    assert reading(source) == {"images/0.jpg": ("None", None)}
    assert source.warnings == ["left out 1 images that no row names: images/1.jpg"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.csv", "filename,class\n0.jpg,None\n", "labels.csv may list the images, but has no columns 'image' and "
                                                     "'label'; it has filename, class: set data.manifest to it"),
        ("labels.csv", "id,label\n0,None\n", "all 2 images lie in one folder, images, .*; a table among labels.csv is "
                                             "read when data.manifest names it"),
        ("train.txt", "0.jpg 1\n", "train.txt beside folders images may list the images"),
        ("coco.json", '{"images": [{"file_name": "0.jpg"}]}', "coco.json may list the images, but has no .*; it "
                                                             "has file_name: set data.manifest to it"),
        ("coco.json", '{"images": [{"file_name": "0.jpg"}], "annotations": []}',
         "manifest coco.json cannot be read: COCO's categories must be a list .*; it may list the images: mend it, or"),
        ("labels.xlsx", "x", "labels.xlsx beside folders images may list the images"),
    ],
)  # fmt: skip
def test_a_table_beside_images_that_is_not_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(files(images(tmp_path, "images"), name, text=text))


def test_a_table_for_each_split_gives_its_images_the_role(tmp_path: Path) -> None:
    images(tmp_path, "images")
    files(tmp_path, "train.csv", text="image,label\n0.jpg,a\n")
    files(tmp_path, "labels_val.csv", text="image,label\n1.jpg,b\n")
    source = opened(tmp_path)
    assert reading(source) == {"images/0.jpg": ("a", TRAIN), "images/1.jpg": ("b", VAL_SELECT)}
    assert source.warnings[0] == "labels_val.csv, train.csv are read as the manifest, a table for each split role"
    files(tmp_path, "train.csv", text="image,label,split\n0.jpg,a,test\n")
    with pytest.raises(DataError, match="train.csv row 2: images/0.jpg is TRAIN by .* and TEST by its split column"):
        opened(tmp_path)


def test_two_tables_beside_images_are_refused_and_named(tmp_path: Path) -> None:
    images(tmp_path, "images")
    files(tmp_path, "a.csv", "train.csv", text="image,label\n0.jpg,a\n")
    with pytest.raises(
        DataError, match="a.csv, train.csv beside folders images may list the images: set data.manifest"
    ):
        opened(tmp_path)
    (tmp_path / "a.csv").unlink()
    (tmp_path / "train.csv").unlink()
    files(tmp_path, "manifest.csv", "manifest.jsonl", text="image,label\nimages/0.jpg,a\n")
    with pytest.raises(DataError, match="has manifest.csv, manifest.jsonl: name one as data.manifest"):
        opened(tmp_path)
    assert len(opened(tmp_path, manifest="manifest.csv").rows) == 1


def test_a_parquet_manifest_may_be_a_folder_of_part_files(tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").mkdir()
    for number in (0, 1):
        table = pa.table({"image": [f"{number}.jpg"], "label": ["x"], "boxes": [[1, 2]], "group": pa.array([7.0])})
        pq.write_table(table, tmp_path / "manifest.parquet" / f"part-{number}.snappy.parquet")
    files(tmp_path, "manifest.parquet/_SUCCESS", "manifest.parquet/.part-0.snappy.parquet.crc", "manifest.parquet/._x")
    source = opened(tmp_path)
    assert [(row.id, row.group, row.tags) for row in source.rows] == [("0.jpg", "7", {}), ("1.jpg", "7", {})]
    assert "left out 1 columns of lists, records or bytes: boxes (list<" in lines(source.warnings)


@pytest.mark.parametrize("value", [["a"], {"a": 1}, b"a"])
def test_a_label_column_of_lists_records_or_bytes_names_column_and_type(tmp_path: Path, value: object) -> None:
    pq.write_table(pa.table({"image": ["a.jpg"], "label": [value]}), tmp_path / "manifest.parquet")
    written = pq.read_schema(tmp_path / "manifest.parquet").field("label").type
    message = rf"manifest.parquet: column label \(data.columns.label\) must hold text or numbers, it is {written}"
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_a_manifest_that_holds_images_is_told_the_format(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [{"bytes": b"x"}], "label": ["a"]}), tmp_path / "manifest.parquet")
    with pytest.raises(DataError, match=r"column image .* it is struct.*; set data.format: parquet"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.csv", "data.manifest gone.csv does not exist"),
        ("folder", "data.manifest folder is a folder: name a file"),
        ("book.xlsx", "manifest book.xlsx cannot be read: save it as .csv"),
        ("bad.parquet", "manifest bad.parquet cannot be read"),
        ("bad.csv.gz", "manifest bad.csv.gz cannot be read"),
    ],
)
def test_a_manifest_that_is_none_is_named(tmp_path: Path, name: str, message: str) -> None:
    files(tmp_path, "folder/x", "book.xlsx", "bad.parquet", "bad.csv.gz")
    with pytest.raises(DataError, match=message):
        opened(tmp_path, manifest=name)


def test_a_column_that_the_config_names_and_no_table_has_is_refused_with_its_key(tmp_path: Path) -> None:
    files(tmp_path, "manifest.csv", text="image,label,drive\na.jpg,x,1\n")
    with pytest.raises(DataError, match=r"data.columns.split is 'Fold', .* manifest.csv; columns are image, label, dr"):
        opened(tmp_path, columns={"split": "Fold"})
    assert opened(tmp_path, columns={"group": "Drive"}).rows[0].group == "1"
    with pytest.raises(DataError, match=r"data.columns.group is 'Drive', which is no column of the set, it has no tab"):
        opened(images(tmp_path / "folders", "a", "b"), columns={"group": "Drive"})


def test_a_column_is_known_in_any_case_and_with_spaces_or_a_mark_around_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(
        " Image,LABEL,\ufeffgroup,Split,LAT,Lon\na.jpg,x,7,test,1,2\n", encoding="utf-8"
    )
    (row,) = opened(tmp_path).rows
    assert (row.group, row.given_split, row.lat, row.lon, row.tags) == ("7", TEST, 1.0, 2.0, {})
    files(tmp_path, "manifest.csv", text="image,label,Split,SPLIT\na.jpg,x,test,train\n")
    with pytest.raises(DataError, match="manifest.csv has the columns 'Split', 'SPLIT', which are one name"):
        opened(tmp_path)
    files(tmp_path, "manifest.csv", text="image,label,Label\na.jpg,x,X\n")
    source = opened(tmp_path)
    assert source.rows[0].tags == {"Label": "X"}
    assert "column Label is not read as label: set data.columns.label" in lines(source.warnings)


def test_a_column_with_nearly_the_name_is_said_once(tmp_path: Path) -> None:
    files(tmp_path, "manifest.csv", text="image,label,latitude,lng,subset,drive_id\na.jpg,x,1,2,test,7\n")
    (line,) = [line for line in opened(tmp_path).warnings if "is not read as" in line]
    assert "column latitude is not read as lat: set data.columns.lat" in line
    assert "lng is not read as lon" in line and "subset is not read as split" in line and "drive_id" in line
    read = {"lat": "latitude", "lon": "lng", "split": "subset", "group": "drive_id"}
    assert "is not read as" not in lines(opened(tmp_path, columns=read).warnings)


def test_a_whole_float_in_text_is_the_whole_number_as_label_group_and_source_id(tmp_path: Path) -> None:
    text = "image,label,group,source_id\na.jpg,1,7,3.00\nb.jpg,1.0,7.0,3\nc.jpg,0,07,1e0\n"
    files(tmp_path, "manifest.csv", text=text)
    rows = opened(tmp_path).rows
    assert [row.label for row in rows] == ["1", "1", "0"]
    assert [row.group for row in rows] == ["7", "7", "07"] and [row.source_id for row in rows] == ["3", "3", "1e0"]


def test_a_label_that_holds_a_line_break_is_refused(tmp_path: Path) -> None:
    files(tmp_path, "manifest.csv", text='image,label\na.jpg,"x\nb,y"\nc.jpg,z\n')
    with pytest.raises(DataError, match="manifest.csv row 3: column label holds a line break"):
        opened(tmp_path)


def test_a_table_that_names_images_beside_the_manifest_is_refused_where_it_gives_labels_and_else_said(
    tmp_path: Path,
) -> None:
    root = files(images(tmp_path, "images"), "manifest.csv", text="image,label\nimages/0.jpg,a\nimages/1.jpg,b\n")
    files(root, "boxes.csv", text="image,x\nimages/0.jpg,1\n")
    assert "boxes.csv names images too and is not read: set data.manifest" in lines(opened(root).warnings)
    files(root, "labels.csv", text="image;label\n0.jpg;b\n")
    with pytest.raises(DataError, match="has manifest.csv, labels.csv: name one as data.manifest"):
        opened(root)
    assert len(opened(root, manifest="labels.csv").rows) == 1 and len(opened(root, manifest="manifest.csv").rows) == 2


def test_a_column_that_the_config_leaves_unnamed_is_a_tag(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image,label,group\na.jpg,1,x\n")
    source = opened(tmp_path, columns={"group": ""})
    assert source.rows[0].group is None and source.rows[0].tags == {"group": "x"}
