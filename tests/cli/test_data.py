"""`natix data check` as a person types it: the page, the lines, and the exit code."""

import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from natix_lib import cli
from natix_lib.errors import LONGEST, ConfigError, DataError
from natix_lib.progress import LONGEST_LINE
from tests.data_sets import write_doubtful
from tests.street_sets import write_images


def check(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["data", "check", *map(str, arguments)])


def test_a_data_set_is_read_and_divided_and_only_the_page_is_left(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", groups=24, frames=2)
    page = tmp_path / "data.html"
    done = check(root, "--output", page, "--set", "split.gps_radius_m=5")
    assert done.exit_code == 0, done.output
    assert "images  48, 0 rejected: None 24, Roadwork 24\n" in done.stdout
    assert "groups  24, 0 of one image, the largest holds 4%\njoined  group 24\nsplits  TRAIN " in done.stdout
    assert done.stdout.endswith(f"report  {page}\n") and "images: 48/48" not in done.stdout
    assert page.read_text().startswith("<!doctype html>") and "48 images, 2 classes" in page.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.html", "images"]
    again = check(root, "--output", page)
    assert isinstance(again.exception, ConfigError) and "data.html exists" in str(again.exception)


def test_a_data_set_that_cannot_be_divided_gets_its_page_and_an_error(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", groups=4, frames=2)
    done = check(root, "-o", tmp_path / "data.html")
    assert isinstance(done.exception, DataError) and "class None has 2 groups" in str(done.exception)
    html = (tmp_path / "data.html").read_text()
    assert "It cannot be divided:</b> class None has 2 groups" in html and "What was joined" not in html
    assert "images  8, 0 rejected" in done.stdout and "groups" not in done.stdout


def test_too_many_damaged_files_are_an_error_and_the_page_shows_them(tmp_path: Path) -> None:
    root = write_doubtful(tmp_path / "images")
    done = check(root, "-o", tmp_path / "data.html")
    assert isinstance(done.exception, DataError)
    assert "1 of 53 images cannot be used, more than data.max_reject_fraction 0.01" in str(done.exception)
    assert "damaged.jpg" in re.sub("<wbr>", "", (tmp_path / "data.html").read_text())


@pytest.mark.parametrize("column", ["label", "group", "source_id", "captured_at", "city"])
def test_cells_of_a_hundred_kilobytes_flood_neither_lines_nor_page(tmp_path: Path, column: str) -> None:
    root = write_images(tmp_path / "images", groups=24, frames=2)
    table = pd.read_csv(root / "manifest.csv", keep_default_na=False, dtype=str)
    table[column] = table.get(column, "x") + "x" * 100_000
    table.to_csv(root / "manifest.csv", index=False)
    done = check(root, "-o", tmp_path / "data.html")
    assert "images  48, 0 rejected: None" in done.stdout and " 24, Roadwork" in done.stdout
    assert max(map(len, done.output.splitlines())) <= LONGEST_LINE and len(str(done.exception)) <= LONGEST
    assert "x" * 1000 not in (tmp_path / "data.html").read_text()


@pytest.mark.parametrize("arguments", [("nowhere",), ("nowhere", "--set", "data.formt=auto")])
def test_what_cannot_be_read_leaves_no_page(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = check(*arguments, "-o", tmp_path / "data.html")
    assert done.exit_code != 0 and not (tmp_path / "data.html").exists()


def test_a_set_without_a_usable_image_names_the_first_and_leaves_no_page(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image,label\na.jpg,x\nb.jpg,y\n")
    done = check(tmp_path, "-o", tmp_path / "data.html", "--set", "data.max_reject_fraction=1")
    assert "class x has no usable image; 2 of 2 cannot be used: a.jpg: no such file; b.jpg" in str(done.exception)
    assert not (tmp_path / "data.html").exists()
