import json
from pathlib import Path
from typing import Any

import pytest

from natix_lib.contracts import TEST, TRAIN
from natix_lib.errors import DataError
from tests.data.layouts import files, images, opened, reading

TWO = {"images/0.jpg": ("a", None), "images/1.jpg": ("b", None)}
RECORDS = [{"image": "0.jpg", "label": "a"}, {"file_name": "1.jpg", "image": "1.jpg", "label": "b"}]
CATEGORIES = [{"id": 7, "name": "a"}, {"id": 3, "name": "b"}]


def coco(**changes: Any) -> dict[str, Any]:
    return {
        "categories": CATEGORIES,
        "images": [{"id": 10, "file_name": "0.jpg", "group": "d1"}, {"id": 11, "file_name": "1.jpg", "tags": ["x"]}],
        "annotations": [{"image_id": 11, "category_id": 3}, *[{"image_id": 10, "category_id": 7, "bbox": [1]}] * 2],
        **changes,
    }


@pytest.mark.parametrize(
    "document",
    [
        RECORDS,
        {"0.jpg": "a", "1.jpg": "b"},
        {"labels": {"0.jpg": "a", "1.jpg": "b"}},
        {"0.jpg": {"label": "a"}, "1.jpg": {"label": "b"}},
        [["0.jpg", "a"], ["1.jpg", "b"]],
        {"labels": [["0.jpg", "a"], ["1.jpg", "b"]]},
        {"version": 1, "images": RECORDS},
        {"data": RECORDS, "classes": ["a", "b"], "info": {"year": 1}},
        coco(),
    ],
)
def test_every_way_to_write_labels_json_beside_images_is_read(tmp_path: Path, document: object) -> None:
    source = opened(files(images(tmp_path, "images"), "labels.json", text=json.dumps(document)))
    assert reading(source) == TWO and list(source.images()) == [b"x", b"x"]


def test_two_lists_of_objects_are_named(tmp_path: Path) -> None:
    text = json.dumps({"images": RECORDS, "frames": RECORDS})
    with pytest.raises(DataError, match="it holds 2 lists of objects, images, frames, and either may list the images"):
        opened(files(images(tmp_path, "images"), "labels.json", text=text))


def test_facts_of_coco_are_columns_and_an_image_without_annotation_has_no_label(tmp_path: Path) -> None:
    document = coco(annotations=[{"image_id": 10, "category_id": 7}])
    rows = opened(files(images(tmp_path, "images"), "coco.json", text=json.dumps(document))).rows
    assert [(row.id, row.label, row.group, row.tags) for row in rows] == [
        ("images/0.jpg", "a", "d1", {}),
        ("images/1.jpg", None, None, {}),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [{"image_id": 10, "category_id": 7}, {"image_id": 10, "category_id": 3}]},
         r"coco.json: 1 of 2 images have annotations of several categories, such as '0.jpg' with a, b"),
        ({"annotations": [{"image_id": 12, "category_id": 7}]}, "COCO's annotation 1 is of image 12, which is not"),
        ({"annotations": [{"image_id": "10", "category_id": 7}]}, "annotation 1 is of image '10', which is not listed"),
        ({"annotations": [{"image_id": 10, "category_id": 1}]}, "is of category 1, which is not listed"),
        ({"annotations": [{"image_id": [10], "category_id": 7}]}, "is of image None, which is not listed"),
        ({"annotations": {}}, "COCO's annotations must be a list of objects, got dict"),
        ({"annotations": [1]}, "COCO's annotations must be a list of objects, got list"),
        ({"categories": None}, "COCO's categories must be a list of objects, got NoneType"),
        ({"categories": [*CATEGORIES, {"id": 3, "name": "c"}]}, "COCO's categories must have an id each, got 3 twice"),
        ({"categories": [{"id": 7}, {"id": 3, "name": "b"}]}, "COCO's category 7 must have a name, got None"),
        ({"images": [{"file_name": "0.jpg"}]}, "COCO's images must have an id each, got None"),
        ({"images": [{"id": 10}, {"id": 11, "file_name": "1.jpg"}]}, "coco.json entry 1: image is empty"),
    ],
)  # fmt: skip
def test_coco_that_contradicts_itself_is_one_line(tmp_path: Path, changes: dict, message: str) -> None:
    root = files(images(tmp_path, "images"), "coco.json", text=json.dumps(coco(**changes)))
    with pytest.raises(DataError, match=message):
        opened(root)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("{}2017", "annotations/instances_{}2017.json"),
        ("images/{}", "annotations/{}.json"),
        ("{}", "{}/_annotations.coco.json"),
        ("{}", "{}.json"),
    ],
)
def test_a_coco_file_for_each_split_gives_the_roles(tmp_path: Path, folder: str, name: str) -> None:
    for split in ("train", "test"):
        images(tmp_path, folder.format(split))
        files(tmp_path, name.format(split), text=json.dumps(coco()))
    assert reading(opened(tmp_path)) == {
        f"{folder.format(split)}/{number}.jpg": ("ab"[number], role)
        for split, role in (("train", TRAIN), ("test", TEST))
        for number in (0, 1)
    }


def test_two_coco_files_of_one_split_are_refused(tmp_path: Path) -> None:
    images(tmp_path, "train2017")
    files(
        tmp_path, "annotations/instances_train2017.json", "annotations/captions_train2017.json", text=json.dumps(coco())
    )
    with pytest.raises(DataError, match="captions_train2017.json, annotations/instances_train2017.json beside folders"):
        opened(tmp_path)


def test_a_key_of_coco_that_is_named_as_the_image_column_does_not_hide_the_file_name(tmp_path: Path) -> None:
    named = [{**image, "image": "other"} for image in coco()["images"]]
    source = opened(files(images(tmp_path, "images"), "labels.json", text=json.dumps(coco(images=named))))
    assert reading(source) == TWO


def test_a_key_without_a_name_is_a_tag_all_the_same(tmp_path: Path) -> None:
    text = json.dumps([{**record, "": 1} for record in RECORDS])
    assert [
        row.tags["Unnamed"] for row in opened(files(images(tmp_path, "images"), "labels.json", text=text)).rows
    ] == [
        "1",
        "1",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "no second class.*; labels.json has no row; a table among labels.json is read when"),
        ("null", "no second class.*; manifest labels.json cannot be read: it must be a list of objects"),
        ('[{"image": "x.jpg", "label": "a"}]', "no second class.*; labels.json names no image of the set; "),
        ('{"0.jpg": 1' + "0" * 5000 + "}", "cannot be read: it holds a number of 5001 digits, at most 1000 are read"),
    ],
)
def test_a_table_that_is_not_taken_is_said_with_its_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(files(images(tmp_path, "images"), "labels.json", text=text))
