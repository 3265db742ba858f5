"""Tables in JSON: a list of records, an object from image to label, one list among other keys, JSON lines, and COCO.

COCO lists images, annotations and categories; an image's class is the one category of all its annotations. An image
of several categories is refused and not decided by count or area: whichever is taken, the file says otherwise.
"""

import json
from collections.abc import Sequence
from typing import Any

from natix_lib.config import Columns
from natix_lib.data.rows import FILE_NAME, Cells, readable, some, whole_number
from natix_lib.errors import DataError

COCO = ("images", "annotations", "categories")
WANTED = "it must be a list of objects with image and label, an object from image to label, or COCO's three lists"


def from_json(text: str, name: str, columns: Columns) -> Cells:
    """Cells of a JSON document.

    Raises:
        ValueError: If it is no JSON, or says nothing of images and labels.
        DataError: If COCO's lists contradict each other.
    """
    document = json.loads(text, object_pairs_hook=unique, parse_int=whole_number)
    if isinstance(document, dict) and {"annotations", "images"} <= document.keys():
        records = _coco(document, name, columns)
    else:
        records = _records(document, columns)
    header, nested = _columns_of(records)
    return header, records, [f"{name} entry {number}" for number in range(1, len(records) + 1)], nested


def from_json_lines(text: str, name: str, _: Columns) -> Cells:
    """Cells of JSON lines, an object in each.

    Raises:
        ValueError: If a line is no JSON, or no object.
    """
    records, places = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            record = json.loads(line, object_pairs_hook=unique, parse_int=whole_number)
            if not isinstance(record, dict):
                raise ValueError(f"line {number} must be an object, it is {type(record).__name__}")
            records.append(record)
            places.append(f"{name} row {number}")
    header, nested = _columns_of(records)
    return header, records, places, nested


def _records(document: Any, columns: Columns) -> list[dict[str, Any]]:
    """Records of a list of objects or of pairs, an object from image to label or to an object, or one such list."""
    if isinstance(document, list) and all(isinstance(entry, dict) for entry in document):
        return document
    if isinstance(document, list) and document and all(map(_is_pair, document)):
        return [{columns.image: image, columns.label: label} for image, label in document]
    if isinstance(document, dict):
        if not any(isinstance(value, dict | list) for value in document.values()):
            return [{columns.image: name, columns.label: value} for name, value in document.items()]
        if len(document) > 1 and all(isinstance(value, dict) for value in document.values()):
            return [{columns.image: name, **value} for name, value in document.items()]
        lists = [key for key, value in document.items() if isinstance(value, list) and value]
        if len(lists) > 1:
            lists = [key for key in lists if all(isinstance(entry, dict) for entry in document[key])]
        if len(lists) > 1:
            raise ValueError(f"it holds {len(lists)} lists of objects, {some(lists)}, and either may list the images")
        if lists:
            return _records(document[lists[0]], columns)
        objects = [value for value in document.values() if isinstance(value, dict)]
        if len(document) == len(objects) == 1:  # an image with its facts, or a name above the whole object
            (name, value), *_ = document.items()
            if any(key in value for key in (columns.label, "label")):
                return [{columns.image: name, **value}]
            return _records(value, columns)
    raise ValueError(WANTED)


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)


def _coco(document: dict[str, Any], name: str, columns: Columns) -> list[dict[str, Any]]:
    """An image's facts and the name of its category."""
    for key in COCO:
        if not isinstance(document.get(key), list) or not all(isinstance(entry, dict) for entry in document[key]):
            raise ValueError(f"COCO's {key} must be a list of objects, got {type(document.get(key)).__name__}")
    images = _by_id(document["images"], "images")
    categories = _by_id(document["categories"], "categories")
    for key, entry in categories.items():
        if not isinstance(entry.get("name"), str) or not entry["name"].strip():
            raise ValueError(f"COCO's category {key!r} must have a name, got {entry.get('name')!r}")
    classes: dict[Any, set[str]] = {}
    for number, entry in enumerate(document["annotations"], 1):
        image, category = _key(entry.get("image_id")), _key(entry.get("category_id"))
        for one, ids, what in ((image, images, "image"), (category, categories, "category")):
            if one not in ids:
                raise ValueError(f"COCO's annotation {number} is of {what} {one!r}, which is not listed")
        classes.setdefault(image, set()).add(categories[category]["name"])
    mixed = [image for image, names in classes.items() if len(names) > 1]
    if mixed:
        first = images[mixed[0]]
        raise DataError(
            f"{name}: {len(mixed)} of {len(images)} images have annotations of several categories, such as "
            f"{first.get(FILE_NAME)!r} with {some(sorted(classes[mixed[0]]))}; an image has one class: list images and "
            "labels in a manifest.csv"
        )
    rows = []
    for key, facts in images.items():
        label = next(iter(classes.get(key, ())), None)
        image = facts.pop(FILE_NAME, None)
        rows.append({**facts, columns.image: image, columns.label: label})
    return rows


def _by_id(entries: Sequence[dict[str, Any]], what: str) -> dict[Any, dict[str, Any]]:
    result: dict[Any, dict[str, Any]] = {}
    for entry in entries:
        key = _key(entry.get("id"))
        if key is None or key in result:
            raise ValueError(f"COCO's {what} must have an id each, got {entry.get('id')!r}{' twice' if key else ''}")
        result[key] = {title: value for title, value in entry.items() if title != "id"}
    return result


def _key(value: Any) -> str | int | None:
    """An id; 7 and "7" are two."""
    return value if isinstance(value, str | int) else None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(
            f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in one object"
        )
    return dict(pairs)


def _columns_of(records: Sequence[dict[str, Any]]) -> tuple[list[str], dict[str, str]]:
    """Columns in the order in which they come up, and those that hold lists or objects."""
    every = list(dict.fromkeys(column for record in records for column in record))
    nested = {
        column: type(record[column]).__name__
        for record in records
        for column in record
        if isinstance(record[column], list | dict)
    }
    return [readable(column) for column in every if column not in nested], nested
