"""Random folders and tables: each is rows or one line, and never a traceback."""

import gzip
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.formats import opened
from benchmarks.layouts import READ
from natix_lib.config import DataSource
from natix_lib.data.classes import resolve_classes
from natix_lib.data.doubts import contradictions, without_names, without_placeholders
from natix_lib.data.sources import open_source
from natix_lib.errors import NatixError
from tests.data.test_formats import tiny

FOLDERS = ["None", "Roadwork", "train", "test", "val", "validation", "images", "docs", ".git", "__MACOSX", "x.parquet"]
FOLDERS += ["test_site", "a b", "Stra\udcdfe", "é", "0", "1", "split=train", "drive1", "part-1.csv"]
NAMES = ["0.jpg", "1.jpg", "2.PNG", "a.jfif", "b.heic", "c", "._0.jpg", "d.txt", "odd\udcff.jpg", "x\\y.jpg"]
NAMES += ["line\n.jpg", "é.png"]
TABLES = ["manifest.csv", "manifest.tsv", "manifest.json", "manifest.jsonl", "manifest.csv.gz", "manifest.parquet"]
TABLES += ["metadata.csv", "metadata.jsonl", "labels.csv", "labels.json", "train.csv", "x.parquet", "test-0.parquet"]
COLUMNS = ["image", "label", "file_name", "group", "source_id", "lat", "lon", "captured_at", "split", "is_synthetic"]
COLUMNS += ["city", "url", "", " label", "image", "label"]
CELLS = [None, "", "x", "None", "Roadwork", 0, 1, -1, 1.0, 0.5, float("nan"), True, ["a"], {"a": 1}, "unknown"]
CELLS += ["0", "91"]
CELLS += ["train", "eval", "2025-01-01", "a,b", 'q"uote', "new\nline", "\udc80", "\0", "../a.jpg", "/a.jpg"]
CELLS += ["C:\\a.jpg"]
CELLS += ["http://x/a.jpg", "a" * 300 + ".jpg", "./images/0.jpg", "images/0.jpg", 10**30, float("inf"), "1e999", " "]


def draw(root: Path, random_numbers: random.Random) -> None:
    """Write a random layout."""
    choice, chance = random_numbers.choice, random_numbers.random
    folders = [Path(*(choice(FOLDERS) for _ in range(random_numbers.randrange(4)))) for _ in range(4)]
    if chance() < 0.6:  # a good layout, and a stray folder now and then
        good = [["None", "Roadwork"], ["train/None", "val/Roadwork"], ["images"], ["train", "test"]]
        folders = [*map(Path, choice(good)), *folders[: chance() < 0.2]]
    for _ in range(random_numbers.randrange(12)):
        path = root / choice(folders) / choice(NAMES)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.write_bytes(b"x")
    if chance() < 0.2:
        (root / "linked").symlink_to(choice([root, root / "None", Path("/nowhere"), root / "linked"]))
    for _ in range(random_numbers.randrange(3)):
        place = root / choice([Path(), Path(), *folders])
        place.mkdir(parents=True, exist_ok=True)
        table = place / choice(TABLES)
        if not table.exists():
            write_table(table, random_numbers)


def write_table(path: Path, random_numbers: random.Random) -> None:
    """Write a random table, sometimes damaged."""
    choice, chance = random_numbers.choice, random_numbers.random
    header = ["image", "label"] if chance() < 0.5 else []
    header += random_numbers.sample(COLUMNS, random_numbers.randrange(5))
    cells: list[Any] = choice([["None", "Roadwork"], ["0", "1", ""], CELLS[:7], CELLS])
    names = [f"{folder}{number}.jpg" for folder in ("", "images/", "train/") for number in range(40)]
    rows = [
        [choice(names) if column in ("image", "file_name") and chance() < 0.9 else choice(cells) for column in header]
        for _ in range(random_numbers.randrange(5))
    ]
    if path.suffix == ".parquet":
        sink = io.BytesIO()
        records = parquet_columns(header, rows, random_numbers)
        if records is not None:
            pq.write_table(records, sink)
        content = sink.getvalue() or b"PAR1"
    elif "json" in path.name:
        lines = [dict(zip(header, row, strict=True)) for row in rows]
        text = (
            "\n".join(map(json.dumps, lines))
            if path.suffix == ".jsonl"
            else json.dumps(choice([lines, {"a.jpg": "x"}, 3]))
        )
        content = text.encode()
    else:
        delimiter = choice(",,;\t")
        text = "\n".join(delimiter.join("" if cell is None else str(cell) for cell in row) for row in [header, *rows])
        content = text.encode(choice(["utf-8", "utf-8", "utf-16", "latin-1", "utf-8-sig"]), "replace")
        content = gzip.compress(content) if path.suffix == ".gz" else content
    if chance() < 0.2 and content:
        damaged = bytearray(content)
        damaged[random_numbers.randrange(len(damaged))] = random_numbers.randrange(256)
        content = bytes(damaged[: random_numbers.randrange(len(damaged) + 1)])
    path.write_bytes(content)


def parquet_columns(header: list[str], rows: Sequence[Sequence[object]], random_numbers: random.Random) -> object:
    """A table whose columns have one type each, as Parquet wants it; None when Arrow cannot hold them."""
    columns = []
    for number, name in enumerate(header):
        values = [row[number] for row in rows]
        if name == "image" and random_numbers.random() < 0.7:
            values = [{"bytes": b"x", "path": None} for _ in values]
        try:
            columns.append(pa.array(values))
        except (pa.ArrowException, UnicodeEncodeError, OverflowError):
            try:
                columns.append(pa.array([None if value is None else str(value) for value in values], pa.string()))
            except UnicodeEncodeError:
                return None
    return pa.table(columns, header)


def read_whole(root: Path, settings: DataSource) -> int:
    """What ingest does before it decodes; every text that comes out can be stored."""
    source = open_source(root, settings)
    rows, lines = without_placeholders(source.rows)
    rows, others = without_names(rows)
    contents = list(source.images())
    assert len(contents) == len(rows) > 0
    for row in rows:
        json.dumps(vars(row), ensure_ascii=False).encode()
    "\n".join([*source.warnings, *lines, *others, *map(str, contents)]).encode()
    assert len({row.id for row in rows}) == len(rows)
    contradictions([(row.id, "p", str(row.label)) for row in rows])
    resolve_classes([row.id for row in rows], [row.label for row in rows], source.class_names, settings, None)
    return len(rows)


def attack(folder: Path, seeds: range) -> tuple[int, int]:
    """Read a layout for each seed; gives how many were read and how many were refused."""
    read = refused = 0
    for seed in seeds:
        random_numbers = random.Random(seed)
        root = folder / str(seed)
        root.mkdir()
        draw(root, random_numbers)
        settings: dict[str, Any] = {
            "format": random_numbers.choice(
                ["auto", "auto", "auto", "manifest", "parquet", "folder", "arrow", "webdataset"]
            ),
            "class_names": random_numbers.choice([[], [], ["None", "Roadwork"]]),
        }
        try:
            read += read_whole(root, DataSource(data_root=str(root), **settings)) > 0
        except NatixError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).encode()
    return read, refused


def damaged(content: bytes, random_numbers: random.Random) -> bytes:
    """One damage: cut off, bytes changed, removed or doubled, or a number made large."""
    data = bytearray(content)
    at = random_numbers.randrange(len(data))
    match random_numbers.randrange(5):
        case 0:
            del data[at:]
        case 1:
            for place in random_numbers.sample(range(len(data)), min(8, len(data))):
                data[place] = random_numbers.randrange(256)
        case 2:
            del data[at : at + random_numbers.randrange(1, 600)]
        case 3:
            data[at:at] = data[at : at + random_numbers.randrange(1, 600)]
        case _:
            data[at : at + 4] = b"\xff\xff\xff\x7f"
    return bytes(data)


def attack_layouts(folder: Path, names: Sequence[str], seeds: range) -> tuple[int, int]:
    """Damage one file of a layout for each seed; what is read has all of its images, or else it is one line.

    A picture in a folder of its own may be lost where its name or its folder is what was damaged; one in a shard, a
    saved set or an archive may not.
    """
    read = refused = 0
    items = tiny()
    for name in names:
        layout = READ[name]
        whole = folder / name.replace("/", "_")
        layout.write(items, whole)
        files = sorted(path for path in whole.rglob("*") if path.is_file() and path.suffix != ".jpg")
        for seed in seeds:
            random_numbers = random.Random(seed)
            path = files[seed % len(files)]
            content = path.read_bytes()
            path.write_bytes(damaged(content, random_numbers))
            scratch = folder / f"{whole.name}-{seed}"
            scratch.mkdir()
            try:
                source = opened(whole, scratch, layout)
                contents = list(source.images())
                assert len(contents) == len(source.rows) > 0
                "\n".join([*source.warnings, *map(str, contents)]).encode()
                holds = sum(isinstance(image, bytes) for image in contents)
                assert holds == len(items) or source.file or "without an image" in str(source.warnings), (name, seed)
                read += 1
            except NatixError as error:
                refused += 1
                assert "\n" not in str(error) and str(error).encode(), (name, seed)
            path.write_bytes(content)
    return read, refused


PACKED = [
    name for name in READ if name.startswith(("WebDataset", "zip of class", "zip of one", "tar", "save_to", "COCO"))
]


def test_damaged_shards_archives_and_coco_are_read_whole_or_refused(tmp_path: Path) -> None:
    names = [name for name in PACKED if not name.startswith("save_to")]
    read, refused = attack_layouts(tmp_path, names, range(6))
    assert read and refused > len(names)


@pytest.mark.slow
def test_2000_damages_of_every_packed_layout_are_read_whole_or_refused(tmp_path: Path) -> None:
    read, refused = attack_layouts(tmp_path, PACKED, range(100, 250))
    assert read > 100 and refused > 500


def test_40_random_layouts_are_read_or_refused(tmp_path: Path) -> None:
    read, refused = attack(tmp_path, range(40))
    assert read + refused == 40 and read and refused


@pytest.mark.slow
def test_2000_random_layouts_are_read_or_refused(tmp_path: Path) -> None:
    read, refused = attack(tmp_path, range(1000, 3000))
    assert read > 100 and refused > 500
