import csv
import io
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from natix_lib.contracts import read_manifest
from natix_lib.data.index import Index, read_index
from natix_lib.errors import ConfigError, ContractError, DataError, StorageError
from tests.cloud_storage import BUCKET, Cloud
from tests.data.test_images import huge_png
from tests.street_sets import ingest_settings, run_step, write_images, write_manifest


def run(root: Path, out: Path, num_classes: int | None = None, **data: object) -> dict[str, float]:
    return run_step("ingest", ingest_settings(root, num_classes, **data), out)[1]


def index(out: Path) -> Index:
    return read_index(out / "index.parquet")


def test_real_photographs_are_ingested_and_open_with_hugging_face_datasets(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "roadwork-real"
    rows = list(csv.DictReader((source / "manifest.csv").read_text().splitlines()))[::40]
    for row in rows:
        (tmp_path / "some" / row["image"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / row["image"], tmp_path / "some" / row["image"])
    write_manifest(tmp_path / "some", rows)
    metrics = run(tmp_path / "some", tmp_path / "out", resize_shorter_side=128)
    assert metrics == {"images": len(rows), "rejected": 0, "classes": 2}
    known = index(tmp_path / "out")
    assert known.class_names == ["None", "Roadwork"] and known.document["positive_classes"] == ["Roadwork"]
    assert known.tag_names == ["source"] and sum(known.document["counts"].values()) == len(rows) == len(known)
    opened = datasets.Dataset.from_file(str(tmp_path / "out" / "images" / "data-00000-of-00001.arrow"))
    assert set(opened.features) == {"id", "image"}
    sizes = zip(known.column("width"), known.column("height"), strict=True)
    for row, stored, tags, size in zip(rows, opened, known.column("tags"), sizes, strict=True):
        with Image.open(source / row["image"]) as original:
            assert min(stored["image"].size) == min(128, *original.size)
            small = original.convert("RGB").resize(stored["image"].size, Image.Resampling.BICUBIC)
        difference = np.abs(np.asarray(small, dtype=float) - np.asarray(stored["image"], dtype=float))
        assert difference.mean() < 6
        assert (stored["id"], tags, stored["image"].size) == (row["image"], {"source": row["source"]}, size)


def test_equal_input_gives_equal_bytes_and_another_label_another_fingerprint(tmp_path: Path) -> None:
    root = write_images(tmp_path / "source", groups=4)
    for name in ("a", "b"):
        run(root, tmp_path / name)
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*") if path.is_file()}
        for name in ("a", "b")
    ]
    assert files[0] == files[1]
    text = (root / "manifest.csv").read_text()
    (root / "manifest.csv").write_text(text.replace("00-0.png,None", "00-0.png,Roadwork"))
    run(root, tmp_path / "c")
    assert index(tmp_path / "a").fingerprint != index(tmp_path / "c").fingerprint


def damaged(tmp_path: Path) -> Path:
    """A set with a truncated, an empty, a huge and a missing image among 24."""
    root = write_images(tmp_path / "source", groups=8)
    content = (root / "00-0.png").read_bytes()
    (root / "00-0.png").write_bytes(content[: len(content) // 2])
    (root / "01-0.png").write_bytes(b"")
    (root / "02-0.png").write_bytes(huge_png())
    (root / "03-0.png").unlink()
    return root


def test_undecodable_images_are_listed_with_their_reasons_and_counted(tmp_path: Path) -> None:
    metrics = run(damaged(tmp_path), tmp_path / "out", max_reject_fraction=0.5)
    assert metrics == {"images": 20, "rejected": 4, "classes": 2}
    rejects = dict(list(csv.reader(io.StringIO((tmp_path / "out" / "rejects.csv").read_text())))[1:])
    assert rejects["00-0.png"].startswith("cannot be decoded")
    assert rejects["01-0.png"] == "the file is empty"
    assert rejects["02-0.png"] == "2500000000 pixels are more than max_pixels 178956970"
    assert rejects["03-0.png"] == "no such file"


def test_too_many_undecodable_images_are_an_error_and_leave_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"4 of 24 images cannot be used, more than data.max_reject_fraction 0.01: 00-0"
    ):
        run(damaged(tmp_path), tmp_path / "out")
    with pytest.raises(ContractError, match=r"has no images.json: it was never finished"):
        read_manifest(tmp_path / "out" / "images", "images")
    assert not (tmp_path / "out" / "index.parquet").exists() and (tmp_path / "out" / "rejects.csv").is_file()


def test_a_class_whose_images_are_all_rejected_is_an_error(tmp_path: Path) -> None:
    root = write_images(tmp_path / "source", groups=2, frames=2)
    for name in ("01-0.png", "01-1.png"):
        (root / name).write_bytes(b"")
    with pytest.raises(DataError, match="class Roadwork has no usable image"):
        run(root, tmp_path / "out", max_reject_fraction=1.0)


def test_an_empty_folder_and_a_missing_one_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"data.data_root .*empty is empty"):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match=r"data.data_root .*gone does not exist"):
        run(tmp_path / "gone", tmp_path / "out")


def test_a_missing_label_is_named(tmp_path: Path) -> None:
    root = write_manifest(tmp_path / "s", [{"image": "a.png", "label": "None"}, {"image": "b.png", "label": ""}])
    with pytest.raises(DataError, match=r"label is missing in 1 of 2 rows, the first is b.png"):
        run(root, tmp_path / "out")


def test_rows_without_a_label_are_dropped_where_the_config_says_so(tmp_path: Path) -> None:
    root = write_images(tmp_path / "source", groups=4)
    text = (root / "manifest.csv").read_text()
    (root / "manifest.csv").write_text(
        text.replace("00-1.png,None", "00-1.png, ").replace("03-2.png,Roadwork", "03-2.png,")
    )
    with pytest.raises(
        DataError, match=r"missing in 2 of 12 rows, the first is 00-1.png; data.unlabelled: drop leaves"
    ):
        run(root, tmp_path / "a")
    assert run(root, tmp_path / "b", unlabelled="drop")["images"] == 10
    assert warnings(tmp_path / "b") == [
        "left out 2 of 12 rows without a label (data.unlabelled: drop): 00-1.png, 03-2.png"
    ]
    (root / "manifest.csv").write_text(
        "".join(line for line in text.splitlines(True) if line[:4] not in ("00-1", "03-2"))
    )
    run(root, tmp_path / "c")
    assert index(tmp_path / "b").fingerprint == index(tmp_path / "c").fingerprint


def test_rows_without_a_label_are_kept_without_one_where_adapt_shall_have_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None of them is of the class None, and their text contradicts no class."""
    root = write_images(tmp_path / "source", groups=4)
    text = (root / "manifest.csv").read_text()
    (root / "manifest.csv").write_text(
        text.replace("00-1.png,None", "00-1.png,").replace("03-2.png,Roadwork", "03-2.png,")
    )
    rules = {"None": {"camera": ["front"]}}
    assert run(root, tmp_path / "a", unlabelled="adapt", contradictions=rules, contradicting="drop")["images"] == 9
    assert run(root, tmp_path / "b", unlabelled="adapt")["images"] == 12
    labels = dict(zip(index(tmp_path / "b").column("id"), index(tmp_path / "b").column("label"), strict=True))
    assert {name for name, label in labels.items() if label is None} == {"00-1.png", "03-2.png"}
    assert "classes: None 5, Roadwork 5; 2 without a label, for adapt alone" in capsys.readouterr().out
    write_manifest(root, [{"image": f"00-{n}.png", "label": ""} for n in range(3)])
    for choice in ("drop", "adapt"):
        with pytest.raises(DataError, match="no row has a label"):
            run(root, tmp_path / "c", unlabelled=choice)


def warnings(out: Path) -> list[str]:
    return list(index(out).document["warnings"])


def test_what_cannot_be_meant_is_said_in_the_log_and_in_the_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path / "source", groups=4)
    shutil.copyfile(root / "00-0.png", root / "01-0.png")
    rows = list(csv.DictReader((root / "manifest.csv").read_text().splitlines()))
    for number, row in enumerate(rows):
        row |= {"url": f"u{number}", "lat": 0, "lon": 0, "captured_at": "noon", "is_synthetic": number == 0}
        row["group"] = "unknown" if number % 2 else row["group"]
    write_manifest(root, rows)
    run(root, tmp_path / "out")
    expected = [
        "Drives cannot be told apart in 6 of 12 rows (50%): they name neither group, place, source_id nor time; names "
        "of 6 of them number frames, which split believes where pictures confirm it; frames of one drive can reach two "
        "splits unless they look alike; a manifest.csv with a group column prevents it",
        "group 'unknown' is a placeholder in 6 of 12 rows (50%) and joins nothing: "
        "00-1.png, 01-0.png, 01-2.png and 3 more",
        "lat 0, lon 0 is a placeholder in 12 of 12 rows (100%) and joins nothing: "
        "00-0.png, 00-1.png, 00-2.png and 9 more",
        "captured_at is neither ISO 8601, a time of EXIF nor seconds since 1970 in 12 of 12 rows (100%), kept as text, "
        "and joins nothing: noon (00-0.png), noon (00-1.png), noon (00-2.png) and 9 more",
        "left out 1 columns with almost as many values as rows, which are no slices: url (12 values in 12 rows)",
        "1 pictures have equal pixels and contradicting labels, 2 images: 00-0.png (None) and 01-0.png (Roadwork)",
    ]
    assert warnings(tmp_path / "out") == expected
    printed = capsys.readouterr().out.splitlines()
    assert printed[:5] == [f"warning: {line}" for line in expected[:5]] and f"warning: {expected[5]}" in printed
    assert printed[-1] == "12 images, 0 rejected, classes: None 6, Roadwork 6"
    data = index(tmp_path / "out")
    assert data.column("group") == [None if n % 2 else f"g{n // 3}" for n in range(12)]
    assert data.column("lat") == [None] * 12 and data.column("captured_at") == ["noon"] * 12
    assert data.column("is_synthetic") == [True] + [False] * 11 and data.tag_names == ["camera"]


def test_any_source_without_groups_is_said_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_images(tmp_path / "source", groups=2)
    lines = (root / "manifest.csv").read_text().splitlines()
    (root / "manifest.csv").write_text("\n".join(line.rsplit(",", 2)[0] for line in lines))
    run(root, tmp_path / "out")
    assert capsys.readouterr().out.startswith("warning: Drives cannot be told apart in 6 of 6 rows (100%): they name")


@pytest.mark.parametrize("format_name", ["AVIF", "JPEG"])
def test_pictures_of_rarer_suffixes_and_odd_names_are_stored(tmp_path: Path, picture: Any, format_name: str) -> None:
    for number, name in enumerate(("None", "Roadwork")):
        (tmp_path / "source" / name).mkdir(parents=True)
        suffix = {"AVIF": "avif", "JPEG": "jfif"}[format_name]
        picture(seed=number).save(tmp_path / "source" / name / f"a\udcff.{suffix}", format_name)
    assert run(tmp_path / "source", tmp_path / "out")["images"] == 2
    assert index(tmp_path / "out").column("id") == [rf"None/a\udcff.{suffix}", rf"Roadwork/a\udcff.{suffix}"]


def test_jfif_and_avif_of_the_cases_are_ingested(cases: Path, tmp_path: Path) -> None:
    for name, file in (("None", "a.jfif"), ("Roadwork", "a.avif")):
        (tmp_path / "source" / name).mkdir(parents=True)
        shutil.copyfile(cases / "images" / file, tmp_path / "source" / name / file)
    assert run(tmp_path / "source", tmp_path / "out")["images"] == 2


def test_the_number_of_classes_is_checked_against_the_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^model.num_classes is 13 but the data has 2: None, Roadwork"):
        run(write_images(tmp_path / "source", groups=2), tmp_path / "out", num_classes=13)


def test_a_bucket_is_read_like_a_folder(cloud: Cloud, tmp_path: Path) -> None:
    root = write_images(tmp_path / "source", groups=4)
    cloud.put({f"street/{path.name}": path.read_bytes() for path in root.iterdir()})
    run(root, tmp_path / "local")
    run_step("ingest", {"data": {"data_root": f"gs://{BUCKET}/street"}}, tmp_path / "remote")
    assert index(tmp_path / "remote").fingerprint == index(tmp_path / "local").fingerprint


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    root = write_images(tmp_path / "source", groups=2)
    with pytest.raises(StorageError, match="cannot write /proc/natix/images"):
        run(root, Path("/proc/natix"))


def test_many_images_go_into_shards_that_are_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from natix_lib.data import arrow

    monkeypatch.setattr(arrow.ShardWriter.__init__, "__defaults__", (20_000,))
    root = write_images(tmp_path / "source", groups=24)
    run(root, tmp_path / "out")
    assert len(list((tmp_path / "out" / "images").glob("data-*.arrow"))) > 1
    data = index(tmp_path / "out")
    assert data.column("id") == sorted(data.column("id")) and len(data) == 72
