"""What a data set is, whatever its layout: a hash of its pixels, its labels and its groups.

Ids, the order of rows and of classes, and the words that groups are named with change with the layout, from a folder
to a manifest to Parquet, so none of them is in it. A group is named by the smallest pixel hash in it. What else a
source may tell of an image, such as a place or a given split, is left out: one layout can say it and another cannot.
The index's other fingerprint has all of that, and says whether two runs of ingest gave the same rows.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from natix_lib.arrays import Ints
from natix_lib.data.groups import joined_by_all, same_source, same_value
from natix_lib.files import canonical_json

COLUMNS = ("id", "label", "group", "source_id", "sha256")


def content_fingerprint(columns: Mapping[str, Sequence[Any]], class_names: list[str]) -> str:
    """A hash that is the same for the same images, labels and groups in any layout.

    Args:
        columns: The columns of the index that COLUMNS names, each (n,), in any order of rows.
        class_names: Name of each class number.

    Returns:
        Hex SHA-256 over the sorted class names, and of each image its pixel hash, the smallest pixel hash of the images
        that `group` and `source_id` join it to, and its class, - for none; images sorted by these three.
    """
    groups = joined_by_all([same_value(columns["group"]), same_source(columns["id"], columns["source_id"]).to])
    group_names = smallest_of(columns["sha256"], groups)
    number = {name: place for place, name in enumerate(sorted(class_names))}
    numbers: dict[int | None, str] = {label: str(number[name]) for label, name in enumerate(class_names)}
    numbers[None] = "-"
    rows = sorted(
        f"{pixels} {group_names[group]} {numbers[label]}"
        for pixels, group, label in zip(columns["sha256"], groups.tolist(), columns["label"], strict=True)
    )
    digest = hashlib.sha256(canonical_json(sorted(class_names)))
    for row in rows:
        digest.update(row.encode() + b"\n")
    return digest.hexdigest()


def smallest_of(values: Sequence[str], groups: Ints) -> dict[int, str]:
    """The smallest value of each group, by the group's number.

    Args:
        values: A text of each row, (n,).
        groups: Number of each row's group, (n,).
    """
    result: dict[int, str] = {}
    for group, value in zip(groups.tolist(), values, strict=True):
        if value < result.get(group, "\U0010ffff"):
            result[group] = value
    return result
