"""How many images a second one core can prepare for training, beside the bare decoder and Hugging Face's processor.

All rows are measured in one process and one run, in turns, on the same stored JPEGs in memory: photographs as ingest
stores them. Time is that of the process on its CPU, one thread, best of the rounds. natix is measured with its own
loader, batches of 32, apart from what is done for a batch on the device, which a GPU does where there is one; here it
is done on the CPU and shown in a column of its own. Run: `make bench-train`.
"""

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers import BitImageProcessorPil

from natix_lib import config
from natix_lib.data.images import prepare, stored_image
from natix_lib.errors import DataError
from natix_lib.training.profiles import PROFILES, STREET, Profile
from natix_lib.training.views import CPU, Views, loader
from natix_lib.transform import Transform

SIDE, STORED = 224, 256
MAX_PIXELS = 10**8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SETTINGS = config.Dataloader(batch_size=32, num_workers=0)
T = TypeVar("T")
TRANSFORM = Transform(SIDE, STORED, False, MEAN, STD)


class Stored:
    """Stored JPEGs in memory, as a role set gives them."""

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents
        self.ids = [f"{row:06}" for row in range(len(contents))]

    def __len__(self) -> int:
        return len(self.contents)

    def image(self, index: int) -> Image.Image:
        return stored_image(self.contents[index])


@dataclass
class Row:
    """One row of the table: CPU seconds of all images in the loader and, on the CPU in a GPU's place, after it."""

    name: str
    run: Callable[[], tuple[float, float]]
    loader: float = float("inf")
    device: float = float("inf")


def in_batches(values: list[T]) -> list[list[T]]:
    """Values in batches of the loader's size."""
    return [values[start : start + SETTINGS.batch_size] for start in range(0, len(values), SETTINGS.batch_size)]


def decoded(images: Stored) -> tuple[float, float]:
    """Pillow alone."""
    begun = time.process_time()
    for content in images.contents:
        Image.open(io.BytesIO(content)).convert("RGB")
    return time.process_time() - begun, 0.0


def processed(images: Stored, processor: BitImageProcessorPil) -> tuple[float, float]:
    """Pillow and Hugging Face's processor, an image at a time as a data set's `__getitem__` calls it, then batches."""
    begun = time.process_time()
    for contents in in_batches(images.contents):
        pictures = [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
        torch.cat([processor(picture, return_tensors="pt")["pixel_values"] for picture in pictures])
    return time.process_time() - begun, 0.0


def viewed(views: Views) -> tuple[float, float]:
    """natix: its loader, and what is done to a batch afterwards."""
    after = 0.0
    begun = time.process_time()
    for batch in loader(views, SETTINGS, in_batches(list(range(len(views))))):
        mark = time.process_time()
        views.finish(batch, CPU)
        after += time.process_time() - mark
    return time.process_time() - begun - after, after


def measure(images: Stored, stored: int, rounds: int) -> list[Row]:
    """All rows, each round once in turn."""
    processor = BitImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_mean=MEAN, image_std=STD
    )

    def natix(numbers: tuple[int, ...], profile: Profile = STREET, multiview: bool = False) -> Views:
        transform = replace(TRANSFORM, multiview=multiview, resize_shorter_side=stored)
        return Views(images, transform, 0, numbers, profile)

    rows = [
        Row("Pillow, decoding alone", lambda: decoded(images)),
        Row("Pillow and Hugging Face's processor", lambda: processed(images, processor)),
        Row("natix, evaluation, one view", lambda: viewed(natix(()))),
        Row("natix, evaluation, three views", lambda: viewed(natix((), multiview=True))),
    ]
    for name in ("street", "street-strong"):
        for count in (1, 4):
            views = natix(tuple(range(1, count + 1)), PROFILES[name])
            rows.append(Row(f"natix, {name}, {count} view{'s' * (count > 1)}", partial(viewed, views)))
    for row in rows * rounds:
        seconds, device = row.run()
        row.loader, row.device = min(row.loader, seconds), min(row.device, device)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, default=Path("../shared/data/roadwork-real/images"))
    parser.add_argument("--most", type=int, default=400)
    parser.add_argument("--stored", type=int, default=STORED, help="shorter side that ingest stores, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    contents = []
    for path in sorted(path for path in arguments.images.rglob("*") if path.is_file())[: arguments.most]:
        try:
            contents.append(prepare(path.read_bytes(), arguments.stored, MAX_PIXELS).content)
        except DataError as error:
            print(f"{path}: {error}")
    rows = measure(Stored(contents), arguments.stored, arguments.rounds)
    bare, peer = rows[0].loader, rows[1].loader
    table = Table(title=f"{len(contents)} photographs, {arguments.stored} pixels stored, {SIDE} seen, one core")
    for column in ("", "images/s a core", "ms an image", "x processor", "x time of decoding", "device's part, ms"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        table.add_row(
            row.name,
            f"{len(contents) / row.loader:,.0f}",
            f"{1e3 * row.loader / len(contents):.2f}",
            f"{peer / row.loader:.2f}",
            f"{row.loader / bare:.2f}",
            f"{1e3 * row.device / len(contents):.2f}",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
