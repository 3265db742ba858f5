"""Small data sets on disk, ingested and split, for the tests of steps."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from natix_lib.steps import ingest, split


def ingest_settings(root: Path, num_classes: int | None = None, **data: Any) -> dict:
    return {"data": {"data_root": str(root), **data}, **({"num_classes": num_classes} if num_classes else {})}


def write_manifest(root: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def write_images(root: Path, groups: int = 24, frames: int = 3, size: tuple[int, int] = (56, 40)) -> Path:
    """Noise with (Roadwork) or without (None) an orange square, `frames` images in each group, tagged by camera."""
    rows = []
    for group in range(groups):
        for frame in range(frames):
            generator = np.random.default_rng((group, frame))
            image = Image.fromarray(generator.integers(60, 120, (size[1], size[0], 3), dtype=np.uint8))
            if group % 2:
                x, y = generator.integers(8, 24, 2)
                image.paste((240, 120, 20), (int(x), int(y), int(x) + 22, int(y) + 14))
            name = f"{group:02d}-{frame}.png"
            root.mkdir(parents=True, exist_ok=True)
            image.save(root / name)
            label = "Roadwork" if group % 2 else "None"
            rows.append({"image": name, "label": label, "group": f"g{group}", "camera": "front" if frame else "rear"})
    return write_manifest(root, rows)


def ingested(folder: Path, **sizes: Any) -> Path:
    """A dataset folder."""
    root = write_images(folder / "source", **sizes)
    ingest.run(ingest_settings(root), str(folder / "dataset"))
    return folder / "dataset"


def ingested_and_split(folder: Path, **sizes: Any) -> tuple[str, str]:
    """A dataset folder and its splits.json."""
    dataset = ingested(folder, **sizes)
    ratios = {"train": 0.4, "val_select": 0.2, "val_calib": 0.2, "test": 0.2}
    split.run({"split": {"ratios": ratios}}, str(dataset), str(folder / "splits.json"))
    return str(dataset), str(folder / "splits.json")
