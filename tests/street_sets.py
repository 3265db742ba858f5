"""Small data sets on disk, ingested and split, for the tests of steps."""

import csv
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from natix_lib.contracts import ARTIFACTS, STEPS


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


def run_step(
    step: str, settings: Mapping[str, Any], folder: Path, inputs: Mapping[str, object] = MappingProxyType({})
) -> tuple[dict[str, str], dict[str, float]]:
    """Run a step on files: the paths of what it made below `folder`, and its metrics."""
    paths = {name: str(folder / ARTIFACTS[name].file) for name in STEPS[step].outputs}
    left_out = set(STEPS[step].optional) - set(inputs)
    taken = {name: str(inputs[name]) for name in STEPS[step].inputs if name not in left_out}
    return paths, importlib.import_module(f"natix_lib.steps.{step}").run(settings, **taken, **paths)


def ingested(folder: Path, **sizes: Any) -> dict[str, str]:
    """Drawn images, ingested: the paths of `images`, `index` and `rejects`."""
    return run_step("ingest", ingest_settings(write_images(folder / "source", **sizes)), folder)[0]


def ingested_and_split(folder: Path, **sizes: Any) -> dict[str, str]:
    """Drawn images, ingested and split: the paths of what both steps made."""
    paths = ingested(folder, **sizes)
    ratios = {"train": 0.4, "val_select": 0.2, "val_calib": 0.2, "test": 0.2}
    return paths | run_step("split", {"split": {"ratios": ratios}}, folder, paths)[0]
