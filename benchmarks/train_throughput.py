"""What training costs: the cached path beside a backbone in every epoch, and each kind of step beside the FLOP limit.

(a) 100 epochs of 13 heads at once on features of K views, and one head with the backbone run in every epoch, on the
same drawn street images: images that go through the backbone, counted at its input, and seconds.

(c) Images a second of a frozen forward pass, a LoRA step, a full step and an adapt step, by natix's own loops with
JPEG decoding and augmentation on, as a share of what the FLOP alone would allow; the first three also on a batch that
already lies on the device. The FLOP are those of `train_networks.py`. The limit is what an H100 or H200 holds in large
bfloat16 products, 790 TFLOP/s of the 989 of its data sheet; of other GPUs the data sheet's; `--tflops` names another.

Random weights of the family's shapes: speed does not depend on what is in them. Without a GPU (c) says that it is not
measured; `--size tiny` runs every line of it on a CPU, whose figures say nothing about a GPU. Run: `make bench-train`.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.feature_cache import Drawn
from benchmarks.train_networks import NORMAL, SIZES, Size, explora_of, flop, network, tuned
from natix_lib import config
from natix_lib.backbones.features import Extractor
from natix_lib.backbones.loading import load_backbone
from natix_lib.demo.backbone import write_untrained_backbone
from natix_lib.demo.dataset import draw_dataset
from natix_lib.distributed.world import ALONE
from natix_lib.explora.learner import Learner
from natix_lib.explora.run import Feed, adapt_backbone
from natix_lib.training.classifier import Classifier
from natix_lib.training.features import batch_features
from natix_lib.training.fit import Objective, fit
from natix_lib.training.passes import Passes
from natix_lib.training.precision import autocast_of, numerics, reserve_cublas
from natix_lib.training.recipe import Recipe, Sets
from natix_lib.training.run import train_classifier
from natix_lib.training.views import Views
from natix_lib.training.watch import Figures
from natix_lib.transform import Transform

LIMITS = {"H100": 790.0, "H200": 790.0, "A100": 312.0, "L4": 121.0}  # bfloat16 TFLOP/s
HEADS = [10 ** (-4 + i / 4) for i in range(13)]  # learning rates of a grid
WARM = 3  # steps before the clock starts

T = TypeVar("T")


class Clock:
    """Seconds of a loop after its first `WARM` rounds."""

    def __init__(self, device: torch.device) -> None:
        """Wait for `device` before it is looked at."""
        self.device, self.seconds, self.rounds = device, 0.0, -WARM
        self._start = time.perf_counter()

    def tick(self) -> None:
        """A round is done."""
        self.rounds += 1
        if self.rounds == 0:
            self._start = self._now()
        self.seconds = 0.0  # what follows the last round is not the loop's

    def stop(self) -> None:
        """The last round is done."""
        self.seconds = self._now() - self._start

    def over(self, rounds: Iterable[T]) -> Iterator[T]:
        """The rounds of a loop, timed."""
        for one in rounds:
            yield one
            self.tick()
        self.stop()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Photographs:
    """JPEGs of noise at 256 x 256, as ingest leaves them, each decoded when it is asked for."""

    def __init__(self, folder: Path, count: int) -> None:
        """Write eight, of which the `count` images are repeats."""
        folder.mkdir()
        generator = np.random.default_rng(0)
        for number in range(8):
            small = Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            small.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=95)
        self.folder, self.ids = folder, [str(number) for number in range(count)]

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Image.Image:
        with Image.open(self.folder / f"{index % 8}.jpg") as image:
            return image.convert("RGB")


@dataclass(frozen=True)
class Bench:
    """Where and how long steps are timed."""

    device: torch.device
    steps: int
    workers: int
    folder: Path
    determinism: Any

    @property
    def autocast(self) -> torch.dtype | None:
        return autocast_of(self.device, "bfloat16")

    def images(self, batch: int) -> Photographs:
        return Photographs(Path(tempfile.mkdtemp(dir=self.folder)) / "images", batch * (self.steps + WARM))


def forward_speed(size: Size, bench: Bench, loading: bool) -> float:
    """Images a second of a frozen network."""
    batch, device, clock = size.batches[0], bench.device, Clock(bench.device)
    extractor = Extractor(tuned(network(size), "frozen").to(device))
    loader = config.Dataloader(batch_size=batch, num_workers=bench.workers)
    views = Views(bench.images(batch), Transform(size.side, 256, False, *NORMAL), 0, (1,))
    if loading:
        for _ in clock.over(batch_features(extractor, views, loader, bench.autocast)):
            pass
    else:
        pixels = torch.randn(batch, 3, size.side, size.side, device=device)
        enabled, dtype = bench.autocast is not None, bench.autocast or torch.bfloat16
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=enabled):
            for here in clock.over(repeat(pixels, bench.steps + WARM)):
                extractor.features(here)
    return batch * clock.rounds / clock.seconds


def step_speed(size: Size, bench: Bench, loading: bool, method: str) -> float:
    """Images a second of the loop that tunes a network."""
    batch, device, clock = size.batches[1], bench.device, Clock(bench.device)
    classifier = Classifier(tuned(network(size), method), 2).to(device).train()
    images = bench.images(batch)
    labels = torch.arange(len(images), device=device) % 2
    loader = config.Dataloader(batch_size=batch, num_workers=bench.workers)
    passes = Passes(Transform(size.side, 256, False, *NORMAL), 0, loader, ALONE)
    resident = torch.randn(batch, 3, size.side, size.side, device=device), labels[:batch]

    def batches(epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        given = passes.pixel_batches(images, labels, epoch, start)
        return clock.over(given if loading else repeat(resident, bench.steps + WARM))

    objective = Objective(batches, bench.steps + WARM, None, lambda: Figures(0.0, 1.0, 1.0, 1.0))
    settings = config.parse(config.Training, {"epochs": 1, "optimizer": {"lr": 1e-5}})
    fit(classifier, objective, settings, 0.999, autocast=bench.autocast)
    return batch * clock.rounds / clock.seconds


def adapt_speed(size: Size, bench: Bench) -> float:
    """Images a second of adapt steps."""
    batch, clock = size.batches[2], Clock(bench.device)
    settings = explora_of(size, bench.steps + WARM)
    feed = Feed(bench.images(batch), size.side, *NORMAL, bench.workers)

    def on_step(learner: Learner) -> None:
        clock.tick()
        if learner.step_number == settings.steps:
            clock.stop()

    adapt_backbone(network(size), feed, settings, on_step=on_step)
    return batch * clock.rounds / clock.seconds


def speed(size: Size, bench: Bench, kind: str, loading: bool = True) -> float:
    """Images a second of a `frozen` forward pass or a `lora`, `all` or `adapt` step."""
    if kind == "frozen":
        return forward_speed(size, bench, loading)
    return adapt_speed(size, bench) if kind == "adapt" else step_speed(size, bench, loading, kind)


def steps_table(names: Iterable[str], bench: Bench, tflops: float | None) -> Table:
    """Each kind of step of each size."""
    gpu = bench.device.type == "cuda"
    name = torch.cuda.get_device_name(bench.device) if gpu else "a CPU, which says nothing about a GPU"
    limit = tflops or next((value for key, value in LIMITS.items() if gpu and key in name), None)
    of = f"{limit:g} TFLOP/s" if limit else "no known limit"
    table = Table(title=f"Steps on {name}, {bench.determinism}, {bench.workers} loader processes, {of}")
    for column in (
        "model",
        "step",
        "images at once",
        "GFLOP an image",
        "images/s",
        "share",
        "resident images/s",
        "share",
    ):
        table.add_column(column, justify="right")
    table.add_column("peak memory, GB", justify="right")
    for model in names:
        size = SIZES[model]
        of_kinds = dict(zip(("frozen", "lora", "all", "adapt"), (0, 1, 1, 2), strict=True))
        for kind, number in of_kinds.items():
            cost = flop(size, kind)
            if gpu:
                torch.cuda.reset_peak_memory_stats(bench.device)
            with numerics(bench.determinism, bench.device):
                loaded = speed(size, bench, kind)
                peak = f"{torch.cuda.max_memory_allocated(bench.device) / 1e9:.1f}" if gpu else "-"
                resident = (
                    speed(size, bench, kind, loading=False) if kind != "adapt" else None
                )  # `make bench-explora` has it
            cells = [model, kind, str(size.batches[number]), f"{cost / 1e9:.3g}"]
            for one in (loaded, resident):
                share = f"{one * cost / limit / 1e12:.0%}" if one and limit else "-"
                cells += [f"{one:,.0f}" if one else "-", share]
            table.add_row(*cells, peak)
    return table


def cached_table(folder: Path, images: int, epochs: int, views: int, side: int) -> Table:
    """13 heads on cached features beside one head with the backbone in every epoch."""
    draw_dataset(folder / "data", images=images, seed=0)
    write_untrained_backbone(folder / "backbone", layers=4, image_size=side)
    import pandas as pd

    rows = pd.read_csv(folder / "data" / "manifest.csv", keep_default_na=False)
    groups = np.random.default_rng(0).permutation(rows["group"].unique().tolist())
    cuts = np.split(groups, [int(0.7 * len(groups)), int(0.85 * len(groups))])
    train, select, calib = (Drawn(folder / "data", rows[rows["group"].isin(chosen)]) for chosen in cuts)
    every = len(train) + len(select) + len(calib)
    table = Table(title=f"{epochs} epochs, {every} images ({len(train)} TRAIN) at {side} px, K = {views} views")
    for column in ("", "heads", "seconds", "images through the backbone", "of TRAIN, over K", "of all, over K"):
        table.add_column(column, justify="right")
    for cached in (True, False):
        training = {"epochs": epochs, "views": views, "feature_cache": cached, "early_stopping": {"patience": epochs}}
        recipe = Recipe(
            config.Model(backbone_id="drawn", image_size=side),
            config.parse(config.Training, {**training, "grid": {"lr": HEADS if cached else []}}),
            config.Dataloader(batch_size=32, num_workers=0),
            Transform(side, 128, False, *NORMAL),
        )
        backbone = load_backbone(folder / "backbone")
        seen: list[int] = []
        backbone.register_forward_hook(
            lambda module, inputs, kw, out, seen=seen: seen.append(len(out[0])), with_kwargs=True
        )
        start = time.perf_counter()
        train_classifier(backbone, "weights", Sets(train, select, calib, 2, "data"), recipe)
        seconds = time.perf_counter() - start
        of_train = sum(seen) - (len(select) + len(calib) if cached else 0)
        cells = [f"{seconds:.1f}", f"{sum(seen):,}", f"{of_train / views / len(train):.2f}" if cached else "-"]
        name = "cached features" if cached else "backbone in every epoch"
        table.add_row(name, str(len(HEADS) if cached else 1), *cells, f"{sum(seen) / views / every:.2f}")
    return table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["cached", "steps", "both"], default="both")
    parser.add_argument("--size", choices=[*SIZES, "large"], default="large", help="large is ViT-L and ViT-H+")
    parser.add_argument("--steps", type=int, default=20, help="timed steps")
    parser.add_argument("--workers", type=int, default=14, help="loader processes")
    parser.add_argument("--tflops", type=float, help="the limit")
    parser.add_argument("--determinism", choices=["exact", "fast"], default="fast")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--side", type=int, default=64)
    given = parser.parse_args(arguments)
    reserve_cublas()
    console = Console(width=160)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if given.part != "steps":
            console.print(cached_table(folder, given.images, given.epochs, given.views, given.side))
        if given.part == "cached":
            return
        if given.size != "tiny" and not torch.cuda.is_available():
            print("steps: not measured, there is no GPU; --size tiny shows that they run")
            return
        names = ("ViT-L", "ViT-H+") if given.size == "large" else (given.size,)
        bench = Bench(ALONE.device, given.steps, given.workers, folder, given.determinism)
        console.print(steps_table(names, bench, given.tflops))


if __name__ == "__main__":
    main()
