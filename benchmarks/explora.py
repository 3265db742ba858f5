"""Does adaptation help on real images? A ViT pre-trained on clean CIFAR-10 images meets them through a bad lens.

A small DINOv3 is pre-trained on clean images without labels (the same learner with every block unfrozen), then
adapted by ExPLoRA to other images of a corrupted domain: each image's contrast falls to between .3 and 1 and each
of its colour channels to between .25 and 1, drawn once from the image's number, as from cameras without white
balance. kNN and a linear probe on corrupted images that neither run saw compare the backbone before and after; the
control is an adaptation with a learning rate of 0. Three seeds, each with its own pre-training.
Run: `make bench-explora`.
"""

import argparse
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from natix_lib.backbones.loading import build_backbone, load_backbone
from natix_lib.config import Dataloader, Explora
from natix_lib.demo.backbone import write_untrained_backbone
from natix_lib.explora.probe import Probe, features_of, probe
from natix_lib.explora.run import Feed, adapt_backbone
from natix_lib.transform import Transform

SIDE, PATCH = 32, 4
CAST, CONTRAST = (0.25, 1.0), (0.3, 1.0)
NORMAL = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Cifar:
    """Some images and labels, clean or corrupted."""

    def __init__(self, rows: list[dict[str, Any]], corrupted: bool) -> None:
        self.ids = [str(row["number"]) for row in rows]
        self.labels = np.array([row["label"] for row in rows])
        self.pictures = [self._open(row, corrupted) for row in rows]

    @staticmethod
    def _open(row: dict[str, Any], corrupted: bool) -> Image.Image:
        image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        if not corrupted:
            return image
        generator = np.random.default_rng(row["number"])
        pixels = np.asarray(image, dtype=np.float32) / 255
        pixels = (0.5 + generator.uniform(*CONTRAST) * (pixels - 0.5)) * generator.uniform(*CAST, 3)
        return Image.fromarray((255 * pixels.clip(0, 1)).astype(np.uint8))

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Image.Image:
        return self.pictures[index]


def read(folder: Path, split: str, start: int, stop: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.rglob(f"*{split}*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return [{**row, "number": number} for number, row in enumerate(rows)][start:stop]


def settings(seed: int, steps: int, **changes: Any) -> Explora:
    values: dict[str, Any] = {
        "steps": steps,
        "batch_size": 64,
        "device_batch_size": 64,
        "lr": 2e-2,
        "prototypes": 64,
        "head_hidden": 256,
        "head_bottleneck": 64,
        "local_crops": 2,
        "teacher_momentum": 0.9,
        "seed": seed,
        "rank": 8,
        "alpha": 8.0,
        **changes,
    }
    return Explora(**values)


def probed(backbone: torch.nn.Module, bank: Cifar, query: Cifar) -> Probe:
    transform = Transform(SIDE, SIDE, False, *NORMAL)
    reference, asked = (features_of(backbone, images, transform, Dataloader(num_workers=0)) for images in (bank, query))
    return probe(reference, bank.labels, asked, query.labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("NATIX_TEST_DATA", "../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretrain-steps", type=int, default=150)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    root, n = Path(arguments.data) / "cifar10-part", arguments.images
    clean = Cifar(read(root, "train", 0, n), corrupted=False)
    domain = Cifar(read(root, "train", n, 2 * n), corrupted=True)
    query = Cifar(read(root, "test", 0, 3000), corrupted=True)
    table = Table(title=f"ExPLoRA on corrupted CIFAR-10, {n} images, {len(query)} held out")
    for column in ("seed", "backbone", "kNN", "linear probe", "seconds"):
        table.add_column(column, justify="right")
    gains = []
    for seed in range(arguments.seeds):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            write_untrained_backbone(Path(scratch) / "b", seed, arguments.hidden, arguments.layers, PATCH, SIDE)
            backbone = load_backbone(Path(scratch) / "b")
        config: Any = backbone.config
        described = config.to_dict()
        pretrain = settings(seed, arguments.pretrain_steps, unfrozen_blocks=arguments.layers)
        state = adapt_backbone(backbone, Feed(clean, SIDE, *NORMAL), pretrain).state
        spent = {"pre-trained": time.perf_counter() - start}
        probes = {}
        for name, changes in (("pre-trained", None), ("learning rate 0", {"lr": 0.0}), ("ExPLoRA", {})):
            start = time.perf_counter()
            model = build_backbone(described)
            model.load_state_dict(state)
            if changes is not None:
                steps = arguments.steps if changes == {} else 2
                adapted = adapt_backbone(model, Feed(domain, SIDE, *NORMAL), settings(seed, steps, **changes))
                model = build_backbone(described)
                model.load_state_dict(adapted.state)
                spent[name] = time.perf_counter() - start
            probes[name] = probed(model, domain, query).accuracies
            knn, linear = (f"{probes[name][method]:.3f}" for method in ("knn", "linear"))
            table.add_row(str(seed), name, knn, linear, f"{spent[name]:.0f}")
        before, after = probes["pre-trained"], probes["ExPLoRA"]
        gains.append(tuple(after[method] - before[method] for method in ("knn", "linear")))
    Console().print(table)
    for method, values in zip(("kNN", "linear probe"), np.array(gains).T, strict=True):
        spread = f" +- {values.std(ddof=1):.3f}" if len(values) > 1 else ""
        print(f"{method}: {values.mean():+.3f}{spread} over {len(values)} seeds")


if __name__ == "__main__":
    main()
