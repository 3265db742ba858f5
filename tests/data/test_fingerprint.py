from typing import Any

import numpy as np
import pytest

from natix_lib.data.fingerprint import content_fingerprint
from natix_lib.files import sha256_bytes

CLASSES = ["None", "Roadwork"]


def columns(**changes: list) -> dict[str, list[Any]]:
    """Six images: two drives of two, an image and its crop."""
    names = ["a", "b", "c", "d", "e", "f"]
    cells: dict[str, list[Any]] = {
        "id": names,
        "label": [0, 0, 1, 1, 1, 1],
        "group": ["x", "x", "y", "y", None, None],
        "source_id": [None, None, None, None, None, "e"],
        "sha256": [sha256_bytes(name.encode()) for name in names],
    }
    return cells | changes


def test_ids_order_and_the_names_of_groups_are_no_part_of_what_a_set_is() -> None:
    first = content_fingerprint(columns(), CLASSES)
    renamed = columns(
        id=["1/a.jpg", "1/b.jpg", "2/c.jpg", "2/d.jpg", "3/e.jpg", "3/f.jpg"],
        group=["7", "7", "8", "8", "alone", None],
        source_id=[None] * 5 + ["3/e.jpg"],
    )
    assert content_fingerprint(renamed, CLASSES) == first
    order = np.random.default_rng(0).permutation(6)
    shuffled = {name: [cells[row] for row in order] for name, cells in columns().items()}
    assert content_fingerprint(shuffled, CLASSES) == first
    turned = columns(label=[1, 1, 0, 0, 0, 0])
    assert content_fingerprint(turned, ["Roadwork", "None"]) == first


@pytest.mark.parametrize(
    "change",
    [
        {"label": [0, 0, 1, 1, 1, 0]},
        {"group": ["x", "x", "y", "y", "y", None]},
        {"group": ["x", None, "y", "y", None, None]},
        {"source_id": [None] * 6},
        {"sha256": [*columns()["sha256"][:5], "0" * 64]},
    ],
)
def test_another_label_group_source_or_picture_is_another_set(change: dict) -> None:
    assert content_fingerprint(columns(**change), CLASSES) != content_fingerprint(columns(), CLASSES)
