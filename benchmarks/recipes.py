"""Which part of a pre-trained backbone to train with how many labelled images: the head, LoRA, last blocks, or all.

Pre-trained weights are not had where this is measured, so a small ViT (4 layers, 64 wide, 64 patches) is pre-trained
here, with labels, on the six animals of CIFAR-10, and meets its four vehicles: other classes of the same camera, as
streets are to the photographs of the web. A fifth of the labelled images choose the epoch and, on the frozen backbone,
the head's rate; all methods see the same images. TEST is the 1,200 vehicles of the test file. Each row is the mean of
three seeds, of which each pre-trains and draws anew, and their range. What it cannot tell: where the lines between the
methods lie for a ViT of 300 million weights. Data: NATIX_TEST_DATA. Run: `make bench-recipes`.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.accuracy import DECAYS, MEAN, RATES, STD, Pictures, cifar, fold
from natix_lib import config
from natix_lib.backbones.loading import build_backbone, load_backbone
from natix_lib.demo.backbone import write_untrained_backbone
from natix_lib.training.recipe import Recipe, Sets
from natix_lib.training.run import train_classifier
from natix_lib.transform import Transform

Values = NDArray[np.float32]
SIDE = 32
VEHICLES = (0, 1, 8, 9)  # airplane, automobile, ship, truck
SEEN, FEWEST, MOST = 12_000, 4, 80  # images a method sees, and epochs
WARM = {"warmup": 0.1, "clip": 1.0, "weight_decay": 0.05, "decayed": "matrices"}
METHODS: dict[str, dict[str, object]] = {
    "head alone": {"grid": {"lr": RATES, "weight_decay": DECAYS}, "views": 4},
    "LoRA": {
        "fine_tune": {"method": "lora", "lora_rank": 16, "lora_alpha": 16},
        "optimizer": {"lr": 1e-3, **WARM},
    },
    "last block": {"fine_tune": {"method": "blocks", "blocks": 1}, "optimizer": {"lr": 5e-4, **WARM}},
    "all": {"fine_tune": {"method": "all"}, "optimizer": {"lr": 5e-4, **WARM}},
    "all, rates by layer": {
        "fine_tune": {"method": "all", "layer_decay": 0.75},
        "optimizer": {"lr": 5e-4, **WARM},
    },
}


def of_classes(pictures: Pictures, classes: tuple[int, ...]) -> Pictures:
    """The images of some classes, whose numbers are counted anew."""
    some = pictures.some(np.flatnonzero(np.isin(pictures.labels, classes)))
    some.labels = np.searchsorted(classes, some.labels)
    return some


def drawn(pictures: Pictures, n: int, seed: int) -> Pictures:
    """`n` images, equally many of each class."""
    generator = np.random.default_rng(seed)
    classes = int(pictures.labels.max()) + 1
    rows = [generator.permutation(np.flatnonzero(pictures.labels == c))[: n // classes] for c in range(classes)]
    return pictures.some(np.sort(np.concatenate(rows)))


def train(backbone: nn.Module, sets: Sets, training: Mapping[str, object], frozen: bool) -> tuple[nn.Module, Values]:
    """Train on a copy of `backbone`: the tuned backbone, and logits of the third set."""
    copy = build_backbone(backbone.config.to_dict())  # type: ignore[union-attr, operator]
    copy.load_state_dict(backbone.state_dict())
    recipe = Recipe(
        config.parse(config.Model, {"backbone_id": "small", "image_size": SIDE, "freeze_backbone": frozen}),
        config.parse(config.Training, {"label_doubts": "off", **training}),
        config.Dataloader(batch_size=64, num_workers=0),
        Transform(SIDE, 384, False, MEAN, STD),
    )
    result = train_classifier(copy, "none", sets, recipe)
    return result.classifier.backbone, result.val_calib_logits


def pretrained(seed: int, epochs: int) -> nn.Module:
    animals = tuple(sorted(set(range(10)) - set(VEHICLES)))
    rest, select = fold(of_classes(cifar("train"), animals), seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "backbone")
        write_untrained_backbone(folder, seed, hidden_size=64, patch_size=SIDE // 8, image_size=SIDE)
        backbone = load_backbone(folder)
    training = {"epochs": epochs, "seed": seed, "optimizer": {"lr": 1e-3, **WARM}}
    return train(backbone, Sets(rest, select, select, len(animals), "none"), training, frozen=False)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[60, 500, 4000])
    parser.add_argument("--pretrain-epochs", type=int, default=6)
    arguments = parser.parse_args()
    vehicles, test = (of_classes(cifar(part), VEHICLES) for part in ("train", "test"))
    figures: dict[tuple[str, int], list[float]] = {}
    for seed in range(arguments.seeds):
        backbone = pretrained(seed, arguments.pretrain_epochs)
        for size in arguments.sizes:
            some = fold(drawn(vehicles, size, seed), seed)
            for name, settings in METHODS.items():
                epochs = int(np.clip(SEEN // len(some[0]), FEWEST, MOST))
                settings = {"epochs": epochs, "seed": seed, **settings}
                sets = Sets(*some, test, len(VEHICLES), "none")
                _, logits = train(backbone, sets, settings, frozen="grid" in settings)
                accuracy = float((logits.argmax(1) == test.labels).mean())
                figures.setdefault((name, size), []).append(accuracy)
                print(f"seed {seed} size {size} {name} {accuracy:.4f}", flush=True)
    table = Table(title=f"TEST accuracy, {arguments.seeds} seeds: mean (least to most)")
    table.add_column("labelled images")
    for size in arguments.sizes:
        table.add_column(f"{size:,}", justify="right")
    for name in METHODS:
        rows = [figures[name, size] for size in arguments.sizes]
        table.add_row(name, *(f"{np.mean(row):.3f} ({min(row):.3f} to {max(row):.3f})" for row in rows))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
