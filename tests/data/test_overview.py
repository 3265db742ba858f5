import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from natix_lib import config
from natix_lib.data.arrow import ShardWriter, images_schema, read_shards
from natix_lib.data.division import COLUMNS, Division, divide
from natix_lib.data.images import prepare
from natix_lib.data.index import Index, index_table, read_index, write_index
from natix_lib.data.overview import overview
from natix_lib.data.thumbnails import Thumbnails
from tests.data_sets import noise

TAG_NAMES = [f"tag {tag}" for tag in range(20)]
LONG = "a/very/long/folder_" * 12


def content(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def indexed(count: int, classes: int) -> tuple[Index, Thumbnails]:
    """An index of pictures that compress badly, with long names and many tags, three images of each group."""
    folder = Path(tempfile.mkdtemp())
    generator = np.random.default_rng(0)
    stored = prepare(content(noise(1, size=(400, 300))), 256, 10**9)
    writer = ShardWriter(folder, images_schema())
    rows = []
    for number in range(count):
        group, name = number // 3, f"{LONG}{number:06d}.jpg"
        image = {"id": name, "image": {"bytes": stored.content, "path": None}}
        writer.add(pa.RecordBatch.from_pylist([image], schema=images_schema()))
        rows.append(
            {
                **dict.fromkeys(("captured_at", "given_split", "is_synthetic")),
                "id": name,
                "label": int(generator.integers(classes)),
                "group": f"drive {group}" if group % 2 else None,
                "source_id": None if group % 2 else f"source {group}",
                "lat": 50.0,
                "lon": group // 2 * 0.01,
                "sha256": str(number // 2),
                "hashes": None if number % 5 == 0 else generator.bytes(8),
                "width": 340 if number % 2 else 40,
                "height": 256,
                "bytes": len(stored.content),
                "tags": {f"tag {tag}": f"{LONG[:80]} {generator.integers(30)}" for tag in range(20)},
            }
        )
    writer.close()
    body = {
        "class_names": [f"{LONG[:100]} {number}" for number in range(classes)],
        "positive_classes": [],
        "rows": count,
        "rejected": 12,
        "rejects": [{"id": f"{LONG}{number}", "reason": LONG, "src": ""} for number in range(12)],
        "contradicting": {"count": 0, "examples": []},
        "warnings": [f"left out {LONG}"] * 5,
        "resize_shorter_side": 256,
        "fingerprint": "f",
        "content_fingerprint": "c",
    }
    write_index(folder / "index.parquet", index_table(rows, TAG_NAMES), TAG_NAMES, body)
    index = read_index(folder / "index.parquet")
    return index, Thumbnails(read_shards(folder))


def large(count: int) -> tuple[Index, Division, Thumbnails]:
    """An index with links of every rule, how it is divided, and its pictures."""
    index, thumbnails = indexed(count, classes=12)
    columns = {name: index.column(name) for name in COLUMNS}
    return index, divide(columns, index.class_names, config.parse(config.Split, {})), thumbnails


def few(**columns: list) -> dict:
    """An overview of some images, each with a class of two in turn; no pictures."""
    count = len(next(iter(columns.values())))
    index, thumbnails = indexed(count, classes=2)
    table = {name: index.column(name) for name in COLUMNS}
    blank: dict[str, list] = {name: [None] * count for name in ("group", "source_id", "lat", "lon", "hashes")}
    blank["sha256"] = [str(number) for number in range(count)]
    table |= {**blank, "label": [number // 2 % 2 for number in range(count)], **columns}
    changed = Index(
        index.table(["id", "given_split", "is_synthetic", "captured_at", "width", "height", "bytes", "tags"])
        .append_column("label", pa.array(table["label"]))
        .append_column("group", pa.array(table["group"], pa.string()))
        .append_column("hashes", pa.array(table["hashes"], pa.binary())),
        index.document,
        "",
    )
    settings = config.parse(config.Split, {"ratios": dict.fromkeys(("train", "val_select", "val_calib", "test"), 0.25)})
    division = divide(table, ["a", "b"], settings)
    return overview(changed, (division, division.document()), thumbnails)


@pytest.mark.slow
def test_links_across_the_owners_groups_come_first_and_then_those_that_look_least_alike() -> None:
    far, near = 0b1111, 0b1
    sources, hashes, groups, generator = [], [], [], np.random.default_rng(1)
    for original, (other, crosses) in enumerate(((near, False), (far, False), (near, True), (0, False)) * 3):
        base = int(generator.integers(2**62))
        sources += [f"s{original}"] * 2
        hashes += [base.to_bytes(8, "little"), (base ^ other).to_bytes(8, "little")]
        groups += [f"g{original}", f"g{original}x" if crosses else f"g{original}"]
    content = few(source_id=sources, hashes=hashes, group=groups)
    (rule,) = [rule for rule in content["joined"] if rule["rule"] == "source_id"]
    assert rule["links"] == 12 and rule["crossing"] == 3
    numbers = [[int(one["id"][-10:-4]) for one in pair["pictures"]] for pair in rule["pairs"]]
    assert [low // 2 % 4 for low, _ in numbers] == [2, 2] and all(high == low + 1 for low, high in numbers)
    (rule,) = few(hashes=hashes)["joined"]
    assert rule["rule"] == "near_duplicate" and rule["links"] == 12
    assert [int(pair["pictures"][0]["id"][-10:-4]) // 2 % 4 for pair in rule["pairs"]][:3] == [1, 1, 1]


@pytest.mark.slow
def test_the_counts_of_a_page_are_counted_in_full() -> None:
    content = few(group=[f"g{number // 2}" for number in range(40)])
    assert content["images"] == 40 and content["groups"] == 20 and content["alone"] == 0
    assert sum(content["group_counts"].values()) == 20
    assert [group["images"] for group in content["largest"]] == [2] * 6
    assert content["sizes"]["tiny"]["count"] == 20 and content["sizes"]["shorter"]["least"] == 40
    assert content["sizes"]["flat"]["count"] == 40
