"""One set in every layout of the table that `benchmarks.formats` prints: one content, or a refusal."""

import io
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.formats import expected, facts, opened
from benchmarks.layouts import READ, REFUSED, SPLITS, Item
from natix_lib.config import DataSource, Split
from natix_lib.errors import DataError
from natix_lib.survey.look import look


def tiny(count: int = 6) -> list[Item]:
    """Pictures of 8 pixels, each of one grey, two of each split."""
    items = []
    for number in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (40 * number,) * 3).save(buffer, "JPEG")
        split = list(SPLITS)[number % 3]
        items.append(Item(f"{number}.jpg", buffer.getvalue(), ("None", "Roadwork")[number // 3], f"d{number}", split))
    return items


def by_datasets(name: str) -> bool:
    return "save_to_disk" in name or name == "Hugging Face Parquet"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if by_datasets(name) else name for name in READ]
)
def test_every_layout_gives_the_same_pixels_labels_groups_and_roles(tmp_path: Path, name: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "scratch").mkdir()
    READ[name].write(tiny(), tmp_path / "set")
    source = opened(tmp_path / "set", tmp_path / "scratch", READ[name])
    assert facts(source, source.images()) == expected(tiny(), READ[name])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "saved" in name else name for name in REFUSED]
)
def test_every_unclear_or_damaged_layout_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "scratch").mkdir()
    REFUSED[name](tiny(), tmp_path / "set")
    with pytest.raises(DataError) as error:
        opened(tmp_path / "set", tmp_path / "scratch")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["zip of one folder of them, as data_root", "WebDataset, .cls", "COCO beside images/"])
def test_init_looks_at_what_ingest_reads(tmp_path: Path, name: str) -> None:
    (tmp_path / "scratch").mkdir()
    READ[name].write(tiny(), tmp_path / "set")
    data = DataSource(data_root=str(tmp_path / "set" / READ[name].root))
    seen = look(data, Split(), None, tmp_path / "scratch")
    assert (len(seen.rows), seen.class_names, seen.sizes) == (6, ["None", "Roadwork"], [(8, 8)] * 6)
