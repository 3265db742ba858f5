import hashlib
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from natix_lib.demo.dataset import draw_dataset
from natix_lib.errors import ConfigError


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 13])
def test_the_manifest_describes_drives_of_near_duplicate_frames(tmp_path: Path, classes: int) -> None:
    draw_dataset(tmp_path, images=460, classes=classes)
    rows = pd.read_csv(tmp_path / "manifest.csv", dtype=str, keep_default_na=False)
    assert len(rows) == len(list((tmp_path / "images").iterdir())) == 460
    assert rows["label"].nunique() == classes and "None" in set(rows["label"])
    drives = rows.groupby("group")
    assert (drives["label"].nunique() == 1).all() and drives.size().max() <= 7
    assert (rows.drop_duplicates("group")["label"].value_counts() >= 5).all()
    with Image.open(tmp_path / rows["image"][0]) as image:
        assert image.size == (288, 176)


@pytest.mark.slow
def test_weather_and_light_do_not_tell_the_label(tmp_path: Path) -> None:
    draw_dataset(tmp_path, images=800)
    rows = pd.read_csv(tmp_path / "manifest.csv", keep_default_na=False).drop_duplicates("group")
    shares = rows.groupby("weather")["label"].apply(lambda labels: (labels == "Roadwork").mean())
    assert shares.between(0.2, 0.8).all() and len(shares) == 4


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        draw_dataset(tmp_path / name, images=80, seed=seed)
    first, second, other = (digest(tmp_path / name) for name in "abc")
    assert first == second != other


@pytest.mark.parametrize(
    ("images", "classes", "message"),
    [(100, 5, "has 2 or 13 classes, got 5"), (60, 13, "13 classes need at least 227 images, got 60")],
)
def test_what_cannot_be_drawn_is_said(tmp_path: Path, images: int, classes: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draw_dataset(tmp_path, images=images, classes=classes)
