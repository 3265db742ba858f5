"""Ingest in shards: the index, the splits and the sets are those of one process, whatever the number of shards."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from natix_lib.config import Columns
from natix_lib.contracts import SETS, read_manifest
from natix_lib.data import parquet
from natix_lib.data.index import read_index
from natix_lib.data.listing import list_folder
from natix_lib.data.parquet import from_parquet
from natix_lib.data.parts import Shard
from natix_lib.errors import ContractError, DataError
from natix_lib.files import sha256_file
from natix_lib.steps import gather, shard, split
from tests.cloud_storage import BUCKET, Cloud
from tests.street_sets import ingest_settings, run_step, write_images, write_manifest


def in_shards(settings: Mapping[str, Any], count: int, out: Path, numbers: list[int] | None = None) -> dict[str, Any]:
    """Ingest in shards, the later ones first: the paths of the shards' folders, the index and the rejects."""
    images, parts = [], []
    for number in numbers or range(count, 0, -1):
        images.append(str(out / f"images-{number}"))
        parts.append(str(out / f"part-{number}"))
        shard.run(settings, shard=f"{number}/{count}", images=images[-1], part=parts[-1])
    whole = {"index": str(out / "index.parquet"), "rejects": str(out / "rejects.csv")}
    gather.run(settings, part=parts, **whole)
    return {"images": images, **whole}


def divided(paths: Mapping[str, Any], out: Path) -> dict[str, str]:
    """What split makes of it: each file's SHA-256."""
    folders = {name: str(out / name) for name in SETS.values()}
    settings = {"split": {"ratios": {"train": 0.4, "val_select": 0.2, "val_calib": 0.2, "test": 0.2}}}
    files = {name: str(out / name) for name in ("splits", "links", "data_report")}
    split.run(settings, images=paths["images"], index=paths["index"], **files, **folders)
    return {path.relative_to(out).as_posix(): sha256_file(path) for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 small images, two of which cannot be read, with tags."""
    root = write_images(tmp_path_factory.mktemp("parts") / "source", groups=12, frames=2)
    (root / "05-1.png").write_bytes(b"")
    (root / "10-1.png").unlink()
    return root


@pytest.mark.slow
def test_any_number_of_shards_gives_the_index_the_splits_and_the_bytes_of_every_set(
    street: Path, tmp_path: Path
) -> None:
    settings = ingest_settings(street, max_reject_fraction=0.1)
    whole, _ = run_step("ingest", settings, tmp_path / "whole")
    expected, sets = read_index(whole["index"]), divided(whole, tmp_path / "sets-1")
    assert len(expected) == 22 and len(sets) >= 9
    for count in (2, 7, 30):  # 30 are more than there are images
        made = in_shards(settings, count, tmp_path / str(count))
        known = read_index(made["index"])
        assert known.table().equals(expected.table()) and known.fingerprint == expected.fingerprint
        assert {key: value for key, value in known.document.items() if key != "parts"} == expected.document
        assert Path(made["rejects"]).read_bytes() == Path(whole["rejects"]).read_bytes()
        assert divided(made, tmp_path / f"sets-{count}") == sets


def test_shards_are_blocks_of_neighbouring_rows_that_together_are_all() -> None:
    for total, count in ((0, 3), (2, 7), (72, 7), (1_000_000, 50)):
        blocks = [Shard(number, count).rows(total) for number in range(1, count + 1)]
        assert [row for block in blocks for row in block] == list(range(total))
        assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    assert [Shard.read(text) for text in Shard.all(2)] == [Shard(1, 2), Shard(2, 2)]


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b"])
def test_a_text_that_names_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match=r"shard must be NUMBER/COUNT, such as 2/3, got"):
        Shard.read(text)


@pytest.mark.slow
def test_what_only_all_images_tell_is_judged_over_all_shards(street: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 of 24 images cannot be used, more than data.max_reject_fraction 0.05: 05"):
        in_shards(ingest_settings(street, max_reject_fraction=0.05), 3, tmp_path / "few")
    assert len((tmp_path / "few" / "rejects.csv").read_text().splitlines()) == 3
    assert not (tmp_path / "few" / "index.parquet").exists()


def test_a_class_that_one_shard_lacks_is_none_that_all_lack(tmp_path: Path) -> None:
    root = write_images(tmp_path / "source", groups=2, frames=2)  # the first half is of one class
    assert read_index(in_shards(ingest_settings(root), 2, tmp_path / "out")["index"]).class_names == [
        "None",
        "Roadwork",
    ]
    for name in ("01-0.png", "01-1.png"):
        (root / name).write_bytes(b"")
    with pytest.raises(DataError, match="class Roadwork has no usable image"):
        in_shards(ingest_settings(root, max_reject_fraction=1.0), 2, tmp_path / "none")


def test_equal_pixels_in_two_shards_with_two_labels_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path / "source", groups=4)
    shutil.copyfile(root / "00-0.png", root / "03-2.png")
    made = in_shards(ingest_settings(root), 2, tmp_path / "out")
    line = "1 pictures have equal pixels and contradicting labels, 2 images: 00-0.png (None) and 03-2.png (Roadwork)"
    assert line in read_index(made["index"]).document["warnings"]
    assert capsys.readouterr().out.count(line) == 1


@pytest.mark.slow
def test_a_missing_a_repeated_and_a_changed_part_are_refused(tmp_path: Path) -> None:
    root = write_images(tmp_path / "source", groups=4)
    settings = ingest_settings(root)
    with pytest.raises(ContractError, match=r"parts of shards 1 to 3 are needed, each once, got those of \[1, 3\]"):
        in_shards(settings, 3, tmp_path / "a", [3, 1])
    with pytest.raises(ContractError, match=r"each once, got those of \[1, 2, 2\]"):
        in_shards(settings, 3, tmp_path / "b", [1, 2, 2])
    shard.run(settings, shard="1/2", images=str(tmp_path / "i1"), part=str(tmp_path / "p1"))
    with (root / "manifest.csv").open("a") as file:
        file.write("new.png,None,g9,rear\n")
    shard.run(settings, shard="2/2", images=str(tmp_path / "i2"), part=str(tmp_path / "p2"))
    parts = [str(tmp_path / name) for name in ("p1", "p2")]
    with pytest.raises(ContractError, match=r"shard 2 of 2 has read other data than shard 1, listed is 13 and 12: the"):
        gather.run(settings, part=parts, index=str(tmp_path / "index"), rejects=str(tmp_path / "rejects"))


@pytest.mark.slow
def test_split_refuses_the_folders_of_another_ingest_and_too_few_of_its_own(tmp_path: Path) -> None:
    settings = ingest_settings(write_images(tmp_path / "source", groups=8))
    made = in_shards(settings, 2, tmp_path / "two")
    other = in_shards(ingest_settings(write_images(tmp_path / "other", groups=9)), 2, tmp_path / "others")
    for number, images in enumerate((made["images"][:1], [made["images"][0], other["images"][1]], [], other["images"])):
        with pytest.raises(ContractError, match="images of the parts differs: the index has"):
            divided({**made, "images": images}, tmp_path / f"sets-{number}")
    assert not list(tmp_path.rglob("set.json"))


class Bytes(dict[str, int]):
    """Objects of a bucket to how often each was downloaded."""


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bytes]:
    from natix_lib.storage.remote import Remote

    counted, download = Bytes(), Remote._download

    def noted(self: Any, source: Any, target: Path) -> None:
        counted[source.name.rpartition("/")[2]] = counted.get(source.name.rpartition("/")[2], 0) + 1
        download(self, source, target)

    monkeypatch.setattr(Remote, "_download", noted)
    yield counted


@pytest.mark.slow
def test_a_shard_downloads_the_table_and_its_own_images_and_no_others(
    cloud: Cloud, tmp_path: Path, downloads: Bytes
) -> None:
    root = write_images(tmp_path / "source", groups=4)
    with (root / "manifest.csv").open("a") as file:
        file.write("gone.png,None,g9,rear\n")
    cloud.put({f"street/{path.name}": path.read_bytes() for path in root.iterdir()})
    settings = ingest_settings(Path("x"), max_reject_fraction=0.1)
    settings["data"]["data_root"] = f"gs://{BUCKET}/street"
    local = ingest_settings(root, max_reject_fraction=0.1)
    shard.run(settings, shard="1/3", images=str(tmp_path / "i"), part=str(tmp_path / "p"))
    assert downloads == {"manifest.csv": 1, **{f"0{group}-{n}.png": 1 for group, n in ((0, 0), (0, 1), (0, 2), (1, 0))}}
    assert read_manifest(tmp_path / "i", "images")["rows"] == 4
    made = in_shards(settings, 3, tmp_path / "cloud")
    expected, _ = run_step("ingest", local, tmp_path / "whole")
    assert read_index(made["index"]).fingerprint == read_index(expected["index"]).fingerprint
    assert Path(made["rejects"]).read_text().splitlines()[1:] == ["gone.png,no such file"]


def test_of_parquet_files_a_shard_opens_those_of_its_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    write_images(tmp_path / "source", groups=6, frames=2)
    names = sorted(path.name for path in (tmp_path / "source").glob("*.png"))
    for number in range(4):  # 3 rows each
        rows = [
            {"image": (tmp_path / "source" / name).read_bytes(), "label": int(name[:2]) % 2}
            for name in names[3 * number : 3 * number + 3]
        ]
        (tmp_path / "set").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / f"{number}.parquet")
    opened: list[str] = []

    def noted(path: Path, columns: list[str], rows: int) -> Iterator[Any]:
        opened.append(path.name)
        return parquet.parquet_batches(path, columns, rows)

    listing = list_folder(tmp_path / "set")
    source = from_parquet(listing, listing.parquet, Columns(), replace(parquet.PARQUET, batches=noted))
    every = list(source.images())
    opened.clear()
    assert list(source.images_of(range(4, 8))) == every[4:8] and opened == ["1.parquet", "2.parquet"]
    assert list(source.images_of(range(12, 12))) == [] and len(opened) == 2
    fewer = source.only([number != 1 for number in range(12)], "left out")
    assert list(fewer.images_of(range(6, 11))) == every[7:]
    assert list(fewer.images_of(range(11))) == [every[0], *every[2:]]


def test_an_image_folder_in_shards_is_the_same(tmp_path: Path) -> None:
    source = write_images(tmp_path / "source", groups=4)
    for path in source.glob("*.png"):
        target = tmp_path / "set" / ("roadwork" if int(path.name[:2]) % 2 else "none") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    settings = ingest_settings(tmp_path / "set")
    expected, _ = run_step("ingest", settings, tmp_path / "whole")
    made = in_shards(settings, 5, tmp_path / "five")
    assert read_index(made["index"]).fingerprint == read_index(expected["index"]).fingerprint
    write_manifest(tmp_path / "empty", [{"image": "a.png", "label": ""}, {"image": "b.png", "label": "None"}])
    with pytest.raises(DataError, match="label is missing in 1 of 2 rows, the first is a.png"):
        in_shards(ingest_settings(tmp_path / "empty"), 2, tmp_path / "unlabelled")
