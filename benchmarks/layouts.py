"""Every layout that people have, each by what writes it from the same items: READ are read, REFUSED are not."""

import csv
import gzip
import io
import json
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from natix_lib.contracts import TEST, TRAIN, VAL_SELECT

SPLITS = {"train": TRAIN, "validation": VAL_SELECT, "test": TEST}


@dataclass(frozen=True)
class Item:
    """A photograph and what is known of it."""

    name: str
    content: bytes
    label: str
    group: str
    split: str


@dataclass(frozen=True)
class Layout:
    """A way to lay out a set.

    Attributes:
        write: Writes the items into an empty folder.
        groups: Whether it holds their groups.
        splits: Whether it holds their splits.
        root: What data.data_root names, below that folder.
        settings: Keys of the section data that it needs.
    """

    write: Callable[[Sequence[Item], Path], None]
    groups: bool = False
    splits: bool = False
    root: str = ""
    settings: tuple[tuple[str, Any], ...] = ()


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def images(items: Iterable[Item], folder: Path, place: str = "images/{0.name}") -> None:
    for item in items:
        put(folder / place.format(item), item.content)


def records(items: Iterable[Item], place: str = "images/{0.name}", image: str = "image") -> list[dict[str, Any]]:
    return [{image: place.format(x), "label": x.label, "group": x.group, "split": x.split} for x in items]


def as_csv(rows: Sequence[dict[str, Any]], delimiter: str = ",", end: str = "") -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=f"{end}\n")
    writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
    return text.getvalue()


def as_lines(rows: Iterable[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def as_parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return sink.getvalue()


def table(
    name: str, write: Callable[[list[dict[str, Any]]], str | bytes], encoding: str = "utf-8"
) -> Callable[[Sequence[Item], Path], None]:
    """A table of that name beside images/."""

    def layout(items: Sequence[Item], folder: Path) -> None:
        images(items, folder)
        content = write([{**row, "street": "Hauptstraße"} for row in records(items)])
        content = content.encode(encoding) if isinstance(content, str) else content
        put(folder / name, gzip.compress(content) if name.endswith(".gz") else content)

    return layout


def metadata(suffix: str, write: Callable[[list[dict[str, Any]]], str | bytes]) -> Callable[..., None]:
    """Hugging Face's imagefolder, a table in the folder of each split."""

    def layout(items: Sequence[Item], folder: Path) -> None:
        images(items, folder, "{0.split}/{0.name}")
        for split in SPLITS:
            rows = records((item for item in items if item.split == split), "{0.name}", "file_name")
            content = write([{key: value for key, value in row.items() if key != "split"} for row in rows])
            put(folder / split / f"metadata.{suffix}", content.encode() if isinstance(content, str) else content)

    return layout


def class_folders(items: Sequence[Item], folder: Path, place: str = "{0.label}/{0.name}") -> None:
    images(items, folder, place)


def usual_names(items: Sequence[Item], folder: Path) -> None:
    names = {"train": "training", "validation": "val2017", "test": "holdout"}
    images((replace(item, split=names[item.split]) for item in items), folder, "{0.split}/{0.label}/{0.name}")


def linked(items: Sequence[Item], folder: Path) -> None:
    class_folders(items, folder / "disk")
    (folder / "set" / ".ipynb_checkpoints").mkdir(parents=True)
    put(folder / "set" / "__MACOSX" / "._a.jpg", b"x")
    for label in {item.label for item in items}:
        (folder / "set" / label).symlink_to(folder / "disk" / label)


def hugging_face(items: Sequence[Item]) -> Any:
    """A data set of the library `datasets` itself."""
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageFeature

    names = sorted({item.label for item in items})
    features = {"image": ImageFeature(), "label": ClassLabel(names=names), "group": Value("string")}
    rows = {
        "image": [{"bytes": item.content, "path": item.name} for item in items],
        "label": [names.index(item.label) for item in items],
        "group": [item.group for item in items],
    }
    return Dataset.from_dict(rows, Features(features))


def parquet(items: Sequence[Item], folder: Path) -> None:
    for split in SPLITS:
        part = hugging_face([item for item in items if item.split == split])
        part.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def saved(items: Sequence[Item], folder: Path) -> None:
    hugging_face(items).save_to_disk(folder / "set", num_shards=2)


def saved_splits(items: Sequence[Item], folder: Path) -> None:
    from datasets import DatasetDict

    parts = {split: hugging_face([item for item in items if item.split == split]) for split in SPLITS}
    DatasetDict(parts).save_to_disk(folder / "set")


def coco(items: Sequence[Item], place: str = "{0.name}") -> bytes:
    names = sorted({item.label for item in items})
    document = {
        "info": {"year": 2026},
        "licenses": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "images": [
            {"id": number, "file_name": place.format(item), "width": 8, "height": 8, "group": item.group}
            for number, item in enumerate(items)
        ],
        "annotations": [
            {"id": number, "image_id": number, "category_id": names.index(item.label) + 1, "bbox": [0, 0, 8, 8]}
            for number, item in enumerate(items)
        ],
    }
    return json.dumps(document).encode()


def coco_one(items: Sequence[Item], folder: Path) -> None:
    images(items, folder)
    put(folder / "annotations.json", coco(items))


def coco_splits(items: Sequence[Item], folder: Path, places: tuple[str, str]) -> None:
    for split in SPLITS:
        part = [item for item in items if item.split == split]
        name = {"train": "train", "validation": "val", "test": "test"}[split] + places[0]
        images(part, folder / name, "{0.name}")
        put(folder / places[1].format(name), coco(part))


def shard(items: Sequence[Item], path: Path, ends: Callable[[Item], dict[str, str]], key: str = "{0.name}") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for item in items:
            stem = key.format(item).removesuffix(".jpg")
            for end, content in {"jpg": item.content, **{e: t.encode() for e, t in ends(item).items()}}.items():
                member = tarfile.TarInfo(f"{stem}.{end}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def as_json(item: Item) -> dict[str, str]:
    return {"json": json.dumps({"label": item.label, "group": item.group})}


def shards(items: Sequence[Item], folder: Path) -> None:
    for split in SPLITS:
        shard([item for item in items if item.split == split], folder / f"{split}-000000.tar", as_json)


def one_shard(name: str, ends: Callable[[Item], dict[str, str]]) -> Callable[[Sequence[Item], Path], None]:
    return lambda items, folder: shard(items, folder / name, ends)


def archive(name: str, layout: Callable[[Sequence[Item], Path], None], top: str = "") -> Callable[..., None]:
    """Another layout in a zip or tar."""

    def write(items: Sequence[Item], folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            layout(items, Path(scratch) / top)
            kind = {"zip": "zip", "tar": "tar", "gz": "gztar"}[name.rpartition(".")[2]]
            base = name.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.make_archive(str(folder / base), kind, scratch)

    return write


def both(*layouts: Callable[[Sequence[Item], Path], None]) -> Callable[[Sequence[Item], Path], None]:
    def write(items: Sequence[Item], folder: Path) -> None:
        for layout in layouts:
            layout(items, folder)

    return write


def pair_lists(items: Sequence[Item]) -> str:
    return json.dumps({"labels": [[item.name, item.label] for item in items]})


def beside(name: str, write: Callable[[Sequence[Item]], str | bytes]) -> Callable[[Sequence[Item], Path], None]:
    def layout(items: Sequence[Item], folder: Path) -> None:
        images(items, folder)
        content = write(items)
        put(folder / name, content.encode() if isinstance(content, str) else content)

    return layout


def table_of_each_split(items: Sequence[Item], folder: Path) -> None:
    images(items, folder)
    for split in SPLITS:
        rows = records((item for item in items if item.split == split), "{0.name}")
        put(folder / f"{split}.csv", as_csv([{k: v for k, v in row.items() if k != "split"} for row in rows]).encode())


def parts(items: Sequence[Item], folder: Path) -> None:
    images(items, folder)
    for number in (0, 1):
        put(folder / "manifest.parquet" / f"part-{number}.parquet", as_parquet(records(items[number::2])))


TABLE = partial(Layout, groups=True, splits=True)
READ: dict[str, Layout] = {
    "manifest.csv": TABLE(table("manifest.csv", as_csv)),
    "manifest.csv, semicolons": TABLE(table("manifest.csv", partial(as_csv, delimiter=";"))),
    "manifest.csv, tabs": TABLE(table("manifest.csv", partial(as_csv, delimiter="\t"))),
    "manifest.csv, trailing comma": TABLE(table("manifest.csv", partial(as_csv, end=","))),
    "manifest.csv, UTF-8 with BOM": TABLE(table("manifest.csv", as_csv, "utf-8-sig")),
    "manifest.csv, UTF-16": TABLE(table("manifest.csv", as_csv, "utf-16")),
    "manifest.csv, Windows-1252": TABLE(table("manifest.csv", as_csv, "cp1252")),
    "manifest.csv.gz": TABLE(table("manifest.csv.gz", as_csv)),
    "manifest.tsv": TABLE(table("manifest.tsv", partial(as_csv, delimiter="\t"))),
    "manifest.jsonl": TABLE(table("manifest.jsonl", as_lines)),
    "manifest.jsonl.gz": TABLE(table("manifest.jsonl.gz", as_lines)),
    "manifest.json": TABLE(table("manifest.json", json.dumps)),
    "manifest.parquet": TABLE(table("manifest.parquet", as_parquet)),
    "manifest.parquet/, part files": TABLE(parts),
    "images/ + labels.csv": TABLE(table("labels.csv", as_csv)),
    "images/ + labels.json, name to label": Layout(
        beside("labels.json", lambda items: json.dumps({item.name: item.label for item in items}))
    ),
    "images/ + labels.json, list of records": TABLE(table("labels.json", json.dumps)),
    'images/ + labels.json, {"images": [...]}': TABLE(
        table("labels.json", lambda rows: json.dumps({"version": 1, "images": rows}))
    ),
    "images/ + dataset.json, pairs": Layout(beside("dataset.json", pair_lists)),
    "images/ + train.csv, validation.csv, test.csv": TABLE(table_of_each_split),
    "class folders": Layout(class_folders),
    "split/class folders": Layout(partial(class_folders, place="{0.split}/{0.label}/{0.name}"), splits=True),
    "training/, val2017/, holdout/": Layout(usual_names, splits=True),
    "class/split folders": Layout(partial(class_folders, place="{0.label}/{0.split}/{0.name}"), splits=True),
    "class folders are links, hidden ones beside": Layout(linked, root="set"),
    "imagefolder, metadata.csv": TABLE(metadata("csv", as_csv)),
    "imagefolder, metadata.jsonl": TABLE(metadata("jsonl", as_lines)),
    "imagefolder, metadata.parquet": TABLE(metadata("parquet", as_parquet)),
    "Hugging Face Parquet": TABLE(parquet),
    "save_to_disk": Layout(saved, groups=True, root="set"),
    "save_to_disk, DatasetDict": TABLE(saved_splits, root="set"),
    "WebDataset, .json, a shard each split": TABLE(shards),
    "WebDataset, .cls": Layout(one_shard("a.tar", lambda item: {"cls": item.label})),
    "WebDataset, .txt": Layout(one_shard("a.tar", lambda item: {"txt": item.label})),
    "WebDataset, .tar.gz": Layout(one_shard("a.tar.gz", as_json), groups=True),
    "WebDataset, the shard as data_root": Layout(one_shard("a.tar", as_json), groups=True, root="a.tar"),
    "COCO beside images/": Layout(coco_one, groups=True),
    "COCO, annotations/instances_*2017.json": TABLE(
        partial(coco_splits, places=("2017", "annotations/instances_{}.json"))
    ),
    "COCO, a file in each split (Roboflow)": TABLE(partial(coco_splits, places=("", "{}/_annotations.coco.json"))),
    "zip of class folders": Layout(archive("set.zip", class_folders)),
    "zip of one folder of them, as data_root": Layout(archive("set.zip", class_folders, "set"), root="set.zip"),
    "tar.gz of images/ + labels.csv": TABLE(archive("set.tar.gz", table("labels.csv", as_csv))),
    "tar of class folders": Layout(archive("set.tar", class_folders)),
    "zip of save_to_disk": TABLE(archive("set.zip", saved_splits)),
}


def cut_off(items: Sequence[Item], folder: Path) -> None:
    shard(items, folder / "a.tar", as_json)
    content = (folder / "a.tar").read_bytes()
    put(folder / "a.tar", content[: len(content) // 2 // 512 * 512])


def leaving(items: Sequence[Item], folder: Path) -> None:
    with zipfile.ZipFile(folder / "set.zip", "w") as file:
        for item in items:
            file.writestr(f"../{item.name}", item.content)


def several_classes(items: Sequence[Item], folder: Path) -> None:
    images(items, folder)
    document = json.loads(coco(items))
    document["annotations"].append({"image_id": 0, "category_id": 3 - document["annotations"][0]["category_id"]})
    put(folder / "coco.json", json.dumps(document).encode())


REFUSED: dict[str, Callable[[Sequence[Item], Path], None]] = {
    "split folders and docs/": both(
        partial(class_folders, place="{0.split}/{0.label}/{0.name}"), partial(class_folders, place="docs/{0.name}")
    ),
    "class folders + labels.csv": both(
        class_folders,
        lambda items, folder: put(folder / "labels.csv", as_csv(records(items, "{0.label}/{0.name}")).encode()),
    ),
    "manifest.csv + labels.csv": both(table("manifest.csv", as_csv), table("labels.csv", as_csv)),
    "metadata.csv + labels.csv": both(table("metadata.csv", as_csv), table("labels.csv", as_csv)),
    "images alone": images,
    "images/ + two tables": both(table("a.csv", as_csv), table("b.csv", as_csv)),
    "images/ + labels.xlsx": beside("labels.xlsx", lambda _: "x"),
    "two archives": both(archive("a.zip", class_folders), archive("b.zip", class_folders)),
    "labels.csv + images.zip": both(
        archive("images.zip", images), lambda items, folder: put(folder / "labels.csv", as_csv(records(items)).encode())
    ),
    "tar of folders, a .json beside each image": lambda items, folder: shard(
        items, folder / "a.tar", as_json, "{0.label}/{0.name}"
    ),
    "WebDataset, a shard cut off": cut_off,
    "WebDataset, .cls and .json differ": one_shard(
        "a.tar", lambda item: {"cls": str(len(item.name + item.group) % 2), **as_json(item)}
    ),
    "two saved data sets": both(
        lambda items, folder: saved(items, folder / "a"), lambda items, folder: saved(items, folder / "b")
    ),
    "COCO, an image of two classes": several_classes,
    "zip with ../": leaving,
}
