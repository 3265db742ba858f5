import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from natix_lib.contracts import TEST, TRAIN
from natix_lib.errors import DataError
from tests.data.layouts import files, lines, opened, reading

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def written(path: Path, metadata: dict | None = None, **columns: object) -> Path:
    """A Parquet file with an image and the columns, one row unless they say otherwise; gives its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()}
    rows = len(next(iter(values.values())))
    table = pa.table({"image": pa.array([{"bytes": b"x", "path": None}] * rows, IMAGE), **values})
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path.parent


def class_label(*names: str) -> dict:
    return {"huggingface": json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})}


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


def test_part_files_of_spark_in_a_folder_called_parquet_are_read(tmp_path: Path) -> None:
    for number in (0, 1):
        written(tmp_path / "train.parquet" / f"part-0000{number}-c0.snappy.parquet", label=["a"])
    files(
        tmp_path / "train.parquet",
        "_SUCCESS",
        "._SUCCESS.crc",
        ".part-00000-c0.snappy.parquet.crc",
        "_metadata.parquet",
    )
    files(tmp_path, "._x.parquet")
    source = opened(tmp_path)
    assert reading(source) == {
        f"train.parquet/part-0000{number}-c0.snappy.parquet#0": ("a", TRAIN) for number in (0, 1)
    }
    assert len(list(source.images())) == 2


def test_folders_of_a_partition_give_the_roles(tmp_path: Path) -> None:
    for split in ("train", "test"):
        written(tmp_path / f"split={split}" / "part-0.parquet", label=["a"])
    assert reading(opened(tmp_path)) == {
        "split=test/part-0.parquet#0": ("a", TEST),
        "split=train/part-0.parquet#0": ("a", TRAIN),
    }


def test_a_file_and_a_folder_of_two_roles_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "test" / "train-0.parquet", label=["a"])
    with pytest.raises(DataError, match="test/train-0.parquet is TRAIN by its name and TEST by its folder: rename one"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "Parquet file x.parquet cannot be read"),
        (lambda path: path.write_bytes(b"PAR1" * 100), "Parquet file x.parquet cannot be read"),
        (
            lambda path: written(path, city=["a"]),
            r"x.parquet has no column 'label' \(data.columns.label\); it has city, image",
        ),
        (
            lambda path: written(path, label=[["a"]]),
            r"column label \(data.columns.label\) must hold text or numbers, it is list",
        ),
        (lambda path: written(path, label=[b"a"]), "column label .* must hold text or numbers, it is binary"),
        (lambda path: written(path, label=[{"a": 1}]), "column label .* must hold text or numbers, it is struct"),
        (
            lambda path: written(path, label=["a"], group=[[1]]),
            r"column group \(data.columns.group\) must hold .* list",
        ),
        (lambda path: written(path, label=[0.5]), "x.parquet#0: column label must hold a class, got the fraction 0.5"),
        (lambda path: written(path, label=pa.array([], pa.string())), "lists no image"),
        (lambda path: written(path, {"huggingface": "{"}, label=[0]), "its Hugging Face metadata cannot be read"),
        (
            lambda path: written(path, {"huggingface": "[" * 99999}, label=[0]),
            "its Hugging Face metadata cannot be read",
        ),
        (
            lambda path: pq.write_table(pa.table({"image": [{"path": "a.jpg"}], "label": ["x"]}), path),
            "column image must hold image bytes, it is struct<path: string>",
        ),
        (
            lambda path: pq.write_table(pa.table([[b"x"], ["a"], ["b"]], ["image", "label", "label"]), path),
            "x.parquet has the column 'label' twice",
        ),
    ],
)
def test_parquet_that_cannot_be_read_rightly_is_one_line(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_damaged_pages_are_one_line(tmp_path: Path) -> None:
    written(tmp_path / "x.parquet", label=["abcdefgh" * 200, "b"])
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    for start in range(4, 300, 8):
        damaged = bytearray(content)
        damaged[start : start + 40] = b"\xff" * 40
        (tmp_path / "x.parquet").write_bytes(damaged)
        try:
            list(opened(tmp_path).images())
        except DataError as error:
            assert "x.parquet" in str(error)


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        ([True, False], ["True", "False"]),
        ([0.0, 1.0], [0, 1]),
        (["0", "1"], ["0", "1"]),
        ([0.0, float("nan")], [0, None]),
        (["Road work ", " Road work"], ["Road work", "Road work"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([0, 1], pa.decimal128(3, 1)), [0, 1]),
        (pa.array([None, None]), [None, None]),
    ],
)
def test_labels_of_every_plain_type_are_read(tmp_path: Path, column: object, labels: list) -> None:
    assert [row.label for row in opened(written(tmp_path / "x.parquet", label=column)).rows] == labels


def test_part_files_that_mean_other_things_by_a_label_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "a" / "a.parquet", class_label("None", "Roadwork"), label=[0])
    written(tmp_path / "a" / "b.parquet", class_label("Roadwork", "None"), label=[0])
    with pytest.raises(
        DataError, match="label declares the classes None, Roadwork in a.parquet and Roadwork, None in b.parquet"
    ):
        opened(tmp_path / "a")
    written(tmp_path / "b" / "a.parquet", label=[0])
    written(tmp_path / "b" / "b.parquet", label=["Roadwork"])
    with pytest.raises(DataError, match="column label is of type number in a.parquet and text in b.parquet"):
        opened(tmp_path / "b")


def test_a_drive_is_one_in_files_of_whole_numbers_and_of_floats(tmp_path: Path) -> None:
    written(tmp_path / "train.parquet", label=["a"], group=[7], city=["x"])
    written(tmp_path / "test.parquet", label=["a", "b"], group=[7.0, None], lat=[1.0, None], lon=[2.0, None])
    assert [row.group for row in opened(tmp_path).rows] == ["7", None, "7"]


def test_a_class_label_of_minus_one_is_no_label(tmp_path: Path) -> None:
    written(tmp_path / "x.parquet", class_label("None", "Roadwork"), label=[0, -1, 1])
    assert [row.label for row in opened(tmp_path).rows] == [0, None, 1]


def test_columns_and_files_that_give_nothing_are_said(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", label=["a"], boxes=[[1]], raw=[b"x"])
    written(tmp_path / "b.parquet", label=pa.array([], pa.string()))
    source = opened(tmp_path)
    assert [row.tags for row in source.rows] == [{}]
    assert "left out 2 columns of lists, records or bytes: boxes (list" in lines(source.warnings)
    assert "1 Parquet files hold no row: b.parquet" in lines(source.warnings)


def test_a_row_without_bytes_is_said(tmp_path: Path) -> None:
    table = pa.table(
        {"image": [{"bytes": b"x", "path": None}, {"bytes": None, "path": "a.jpg"}, None], "label": list("abc")}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    assert [str(content) for content in opened(tmp_path).images()] == ["b'x'", "no image bytes", "no image bytes"]


def test_text_that_is_not_utf_8_is_one_line(tmp_path: Path) -> None:
    column = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    written(tmp_path / "x.parquet", label=column)
    with pytest.raises(DataError, match="Parquet file x.parquet cannot be read: .*utf-8"):
        opened(tmp_path)


def test_columns_of_parquet_are_known_in_any_case_and_a_named_one_must_be_there(tmp_path: Path) -> None:
    pq.write_table(pa.table({"Image": [{"bytes": b"x"}], "Label": ["a"], "Split": ["test"]}), tmp_path / "x.parquet")
    source = opened(tmp_path)
    assert (source.rows[0].label, source.rows[0].given_split) == ("a", "TEST") and list(source.images()) == [b"x"]
    with pytest.raises(DataError, match="data.columns.group is 'Drive', which is no column of x.parquet; columns are"):
        opened(tmp_path, columns={"group": "Drive"})


def test_a_split_column_that_contradicts_the_name_of_the_file_is_refused(tmp_path: Path) -> None:
    root = written(tmp_path / "train.parquet", label=["a"], split=["test"])
    with pytest.raises(DataError, match=r"train.parquet#0 is TRAIN by its file's name and TEST by its split column"):
        opened(root)
    written(root / "train.parquet", label=["a", "b"], split=["train", None])
    assert [row.given_split for row in opened(root).rows] == [TRAIN, TRAIN]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *(("test-drive-munich", None), ("dev_kit", None), ("testing_lab-0", None), ("train.zstd", None)),
        *(("train0", TRAIN), ("test0", TEST), ("test_2", TEST), ("train-00000-of-00004", TRAIN)),
        *(("test-00000-of-00001-0a1b2c3d4e5f6789", TEST), ("Test_set", TEST)),
    ],
)
def test_a_file_gives_a_role_by_the_rule_of_folders(tmp_path: Path, name: str, role: str | None) -> None:
    source = opened(written(tmp_path / f"{name}.parquet", label=["a"]))
    assert source.rows[0].given_split == role
    assert ("begin with the word of a split role and give none" in lines(source.warnings)) == (role is None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("default/train/0", "inverted/train/0"),
        ("train", "backup/train"),
        ("a/test-00000-of-00002", "b/test-00000-of-00001"),
    ],
)
def test_two_versions_of_one_set_are_refused_together(tmp_path: Path, one: str, other: str) -> None:
    for name in (one, other):
        written(tmp_path / f"{name}.parquet", label=["a"])
    with pytest.raises(DataError, match=r".parquet are the same part of the set by their names, .* set data.data_root"):
        opened(tmp_path)


def test_parts_of_one_set_below_other_folders_are_no_copies(tmp_path: Path) -> None:
    names = ["city=a/split=train/0", "city=b/split=train/0", "train/a/0", "train/b/0", "x/0", "y/0"]
    names += ["c/test-00000-of-00002", "c/test-00001-of-00002"]
    for name in names:
        written(tmp_path / f"{name}.parquet", label=["a"])
    assert len(opened(tmp_path).rows) == len(names)
