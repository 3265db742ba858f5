"""A drawn data set in the form that ingest reads: manifest.csv beside images, drives of near-duplicate frames.

It lets everyone try the whole pipeline without data of their own, and has what makes real sets hard: frames of one
drive look alike and must not be split, weather and light vary without telling the label, classes are not balanced.
"""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from natix_lib.demo.street_scene import LIGHTS, ROADWORK, WEATHERS, Scene, draw_frame
from natix_lib.errors import ConfigError
from natix_lib.files import write_bytes, write_csv

NONE, ROADWORK_CLASS = "None", "Roadwork"
BINARY = ("Cones", "Barrier", "Sign")  # what stands for roadwork in the binary set
CITIES = ("Arden", "Brook", "Cove", "Dale")
DRIVE_FRAMES = (3, 7)
DRIVE_SPACING = 0.005  # degrees of latitude, some 550 m: no two drives are one place
NONE_SHARE = 0.55  # of the drives of the binary set
COLUMNS = ("image", "label", "group", "lat", "lon", "captured_at", "weather", "light", "city")


def draw_dataset(folder: str | Path, images: int = 1600, classes: int = 2, seed: int = 0) -> None:
    """Draw a data set: `folder/images/*.jpg` and `folder/manifest.csv`; the same arguments give the same bytes.

    Args:
        folder: Folder to write; it is made where it is not there yet.
        images: Number of images in all.
        classes: Number of classes, 2 (`None`, `Roadwork`) or 13 (`None` and twelve classes of roadwork).
        seed: Number that decides all that is drawn at random.

    Raises:
        ConfigError: If `classes` is neither, or the images are too few for every class to have five drives.
    """
    if classes not in (2, 1 + len(ROADWORK)):
        raise ConfigError(f"a drawn data set has 2 or {1 + len(ROADWORK)} classes, got {classes}")
    names = [NONE, ROADWORK_CLASS] if classes == 2 else [NONE, *ROADWORK]
    if images < 5 * DRIVE_FRAMES[1] * classes // 2:
        raise ConfigError(f"{classes} classes need at least {5 * DRIVE_FRAMES[1] * classes // 2} images, got {images}")
    root = Path(folder)
    generator = np.random.default_rng(seed)
    rows: list[tuple[str, ...]] = []
    while len(rows) < images:
        drive = rows[-1][COLUMNS.index("group")] if rows else ""
        number = int(drive.removeprefix("drive-")) + 1 if drive else 0
        label = _label(names, number, generator)
        scene = _scene(label, generator, seed, number)
        city = CITIES[int(generator.integers(len(CITIES)))]
        start = datetime(2025, 3, 1, tzinfo=UTC) + timedelta(hours=7 * number)
        for frame in range(min(int(generator.integers(*DRIVE_FRAMES, endpoint=True)), images - len(rows))):
            name = f"images/drive-{number:04d}-{frame:02d}.jpg"
            buffer = io.BytesIO()
            draw_frame(scene, frame).save(buffer, "JPEG", quality=90)
            write_bytes(root / name, buffer.getvalue())
            values = (
                name,
                label,
                f"drive-{number:04d}",
                f"{48 + DRIVE_SPACING * number + 2e-5 * frame:.6f}",
                f"{11 + 1e-5 * frame:.6f}",
                (start + timedelta(seconds=frame)).isoformat(),
                scene.weather,
                scene.light,
                city,
            )
            rows.append(values)
    write_csv(root / "manifest.csv", [COLUMNS, *rows])


def _label(names: list[str], number: int, generator: np.random.Generator) -> str:
    """Classes in turn for the first drives, so that none is missing, and at random after."""
    if number < 5 * len(names):
        return names[number % len(names)]
    if len(names) == 2:
        return names[int(generator.random() >= NONE_SHARE)]
    return names[int(generator.integers(len(names)))]


def _scene(label: str, generator: np.random.Generator, seed: int, number: int) -> Scene:
    classes: list[str] = []
    if label == ROADWORK_CLASS:
        classes = [str(name) for name in generator.choice(BINARY, int(generator.integers(2, 4)), replace=False)]
    elif label != NONE:
        classes = [label, label]
    objects = []
    first = generator.choice((-1.0, 1.0))
    for turn, name in enumerate(classes):
        side = first * (-1) ** turn
        for step in range(int(generator.integers(4, 7))):
            offset = float(side * generator.uniform(0.5, 0.95))
            objects.append((ROADWORK[name], offset, 1.2 + 0.38 * step, float(generator.uniform(0.5, 0.75))))
    return Scene(
        light=LIGHTS[int(generator.choice(3, p=(0.65, 0.2, 0.15)))],
        weather=WEATHERS[int(generator.choice(4, p=(0.6, 0.2, 0.1, 0.1)))],
        seed=1_000_003 * (seed + 1) + number,
        objects=objects,
    )
