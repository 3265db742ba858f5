"""100 epochs of head training: features computed once against the backbone run in every epoch.

Both sides are `natix_lib.training.run.train_classifier` on the same drawn street images, backbone, seed, batch size
and epochs, with early stopping off; the only difference is `training.feature_cache`. Accuracy is on images that
neither side saw. Run: `make bench` (about five minutes on two cores).
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Console
from rich.table import Table

from natix_lib import config
from natix_lib.backbones.loading import load_backbone
from natix_lib.demo.backbone import write_untrained_backbone
from natix_lib.demo.dataset import draw_dataset
from natix_lib.training.recipe import Recipe, Sets
from natix_lib.training.run import train_classifier
from natix_lib.training.watch import best_epoch
from natix_lib.transform import Transform

SIZE, LAYERS = 96, 6


class Drawn:
    """Some rows of a drawn manifest, images in memory."""

    def __init__(self, folder: Path, rows: pd.DataFrame) -> None:
        self.ids = rows["image"].tolist()
        self.groups = rows["group"].tolist()
        self.labels = (rows["label"] == "Roadwork").to_numpy().astype(np.int64)
        self._images = [Image.open(folder / name).convert("RGB") for name in self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Image.Image:
        return self._images[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--images", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        compare(Path(scratch), arguments.epochs, arguments.images)


def compare(folder: Path, epochs: int, images: int) -> None:
    """Time both sides and print the table."""
    draw_dataset(folder / "data", images=images, seed=0)
    write_untrained_backbone(folder / "backbone", layers=LAYERS, image_size=SIZE)
    rows = pd.read_csv(folder / "data" / "manifest.csv", keep_default_na=False)
    groups = np.random.default_rng(0).permutation(rows["group"].unique().tolist())
    first, second = int(0.6 * len(groups)), int(0.75 * len(groups))
    train, val_select, held_back = (
        Drawn(folder / "data", rows[rows["group"].isin(chosen)])
        for chosen in (groups[:first], groups[first:second], groups[second:])
    )
    transform = Transform(SIZE, 128, False, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    table = Table(title=f"{epochs} epochs of head training, {len(train)} TRAIN images at {SIZE} px")
    for column in ("", "seconds", "ratio", "val_select/acc", "held-out accuracy"):
        table.add_column(column, justify="right")
    timings: dict[bool, float] = {}
    for cached in (True, False):
        training = {"epochs": epochs, "views": 2, "feature_cache": cached, "early_stopping": {"patience": epochs}}
        recipe = Recipe(
            config.Model(backbone_id="drawn", image_size=SIZE),
            config.parse(config.Training, training),
            config.Dataloader(batch_size=32, num_workers=0),
            transform,
        )
        backbone = load_backbone(folder / "backbone")
        start = time.perf_counter()
        trained = train_classifier(backbone, "weights", Sets(train, val_select, held_back, 2, "data"), recipe)
        timings[cached] = time.perf_counter() - start
        held_out = float((trained.val_calib_logits.argmax(1) == held_back.labels).mean())
        error = (held_out * (1 - held_out) / len(held_back)) ** 0.5
        table.add_row(
            "feature cache" if cached else "backbone every epoch",
            f"{timings[cached]:.1f}",
            f"{timings[cached] / timings[True]:.1f}x",
            f"{best_epoch(trained.history, recipe.training.early_stopping).val_select_acc:.3f}",
            f"{held_out:.3f} +- {error:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
