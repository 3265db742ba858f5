"""What each road to a model is worth on real images: accuracy, macro-F1, MCC, AUROC, seconds, memory, size.

Roads: the commonest class; a histogram of colours (8 x 8 x 8, hue, saturation, value) with logistic regression and with
boosted trees, scikit-learn's, which are the peers that need no network; `patches`; and a small ViT (4 layers, 64 wide,
64 patches) of random weights, as no download is had where this is measured: frozen, with LoRA, and all of it tuned, as
it is drawn and after adapt has pre-trained it on TRAIN without labels (`explora.from_scratch`). On roadwork-real TEST
is a fifth of the groups, so a drive is whole, and figures are also those of its web photographs, where the camera does
not tell the label; on CIFAR-10 it is the test file. A fifth of the other images choose the epoch and the head. The
means over three seeds and their range, which for CIFAR-10's fixed TEST is that of training alone. Seconds are those of
the CPUs, so that a busy machine tells the same. Each road is a process of its own, so that its memory is its own.
Data: NATIX_TEST_DATA. Run: `make bench-accuracy`.
"""

import argparse
import csv
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from natix_lib import config
from natix_lib.backbones.loading import build_backbone, load_backbone
from natix_lib.backbones.sources import copy_backbone
from natix_lib.demo.backbone import write_untrained_backbone
from natix_lib.explora.run import Feed, adapt_backbone
from natix_lib.training.recipe import Recipe, Sets
from natix_lib.training.run import train_classifier
from natix_lib.transform import Transform

DATA = Path(os.environ.get("NATIX_TEST_DATA", "../shared/data"))
SETS = ("roadwork-real", "cifar10-part")
SIZES = {"roadwork-real": 64, "cifar10-part": 32}  # pixels that models see
EPOCHS = {"roadwork-real": 40, "cifar10-part": 4}  # of tuning
ADAPT_STEPS = 150  # of 64 images
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RATES, DECAYS = [3e-5, 1e-4, 3e-4, 1e-3, 3e-3], [1e-4, 0.1, 1.0]
Values = NDArray[np.float64]


@dataclass
class Pictures:
    """Encoded images in memory; `web` tells which of them are web photographs."""

    ids: list[str]
    content: list[bytes]
    labels: NDArray[np.int64]
    groups: list[str]
    web: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self.content[index])).convert("RGB")

    def some(self, rows: NDArray[np.int64]) -> "Pictures":
        listed = rows.tolist()
        return Pictures(
            [self.ids[row] for row in listed],
            [self.content[row] for row in listed],
            self.labels[rows],
            [self.groups[row] for row in listed],
            self.web[rows],
        )


def road_photographs() -> Pictures:
    root = DATA / "roadwork-real"
    with (root / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return Pictures(
        [row["image"] for row in rows],
        [(root / row["image"]).read_bytes() for row in rows],
        np.array([int(row["label"] == "Roadwork") for row in rows]),
        [row["group"] for row in rows],
        np.array([row["source"] == "tracon" for row in rows]),
    )


def cifar(part: str) -> Pictures:
    table = pq.read_table(DATA / "cifar10-part" / f"{part}.parquet").to_pydict()
    ids = [f"{part}-{row}" for row in range(len(table["label"]))]
    content = [image["bytes"] for image in table["image"]]
    return Pictures(ids, content, np.array(table["label"]), ids, np.zeros(len(ids), dtype=bool))


def divided(name: str, seed: int) -> tuple[Pictures, Pictures, Pictures]:
    """TRAIN, VAL_SELECT and TEST."""
    if name == "roadwork-real":
        every = road_photographs()
        rest, test = fold(every, seed)
    else:
        rest, test = cifar("train"), cifar("test")
    train, select = fold(rest, seed)
    return train, select, test


def fold(pictures: Pictures, seed: int) -> tuple[Pictures, Pictures]:
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    rest, part = next(folds.split(np.zeros(len(pictures)), pictures.labels, pictures.groups))
    return pictures.some(rest), pictures.some(part)


Road = Callable[[str, int], tuple[Values, int]]  # data set and seed to probabilities of TEST (n, C), and bytes


def majority(name: str, seed: int) -> tuple[Values, int]:
    train, _, test = divided(name, seed)
    share = np.bincount(train.labels) / len(train)
    return np.tile(share, (len(test), 1)), 8 * len(share)


def histogram(model: Callable[[int], object]) -> Road:
    def road(name: str, seed: int) -> tuple[Values, int]:
        train, select, test = divided(name, seed)
        every = [np.stack([_colours(part.image(row)) for row in range(len(part))]) for part in (train, select, test)]
        fitted = model(seed).fit(np.concatenate(every[:2]), np.concatenate([train.labels, select.labels]))  # type: ignore[attr-defined]
        probabilities: Values = fitted.predict_proba(every[2])
        return probabilities, 0

    return road


def _colours(image: Image.Image) -> Values:
    pixels = np.asarray(image.convert("HSV")).reshape(-1, 3) // 32
    counts = np.bincount(pixels @ [64, 8, 1], minlength=512)
    shares: Values = np.sqrt(counts / counts.sum())
    return shares


def adapt(backbone: nn.Module, feed: Feed, seed: int) -> nn.Module:
    settings: dict[str, object] = {"steps": ADAPT_STEPS, "batch_size": 64, "device_batch_size": 64, "seed": seed}
    settings |= {"from_scratch": True, "lr": 2e-3, "weight_decay": 0.04, "teacher_momentum": 0.98, "local_crops": 2}
    settings |= {"prototypes": 1024, "head_hidden": 256, "head_bottleneck": 64, "precision": "float32"}
    state = adapt_backbone(backbone, feed, config.parse(config.Explora, settings)).state
    whole = build_backbone(backbone.config.to_dict())  # type: ignore[union-attr, operator]
    whole.load_state_dict(state)
    return whole


def trained(kind: str, adapted: bool = False) -> Road:
    def road(name: str, seed: int) -> tuple[Values, int]:
        train, select, test = divided(name, seed)
        size = SIZES[name]
        model: dict[str, object] = {"backbone_id": "patches" if kind == "patches" else "small", "image_size": size}
        training: dict[str, object] = {"epochs": 60, "views": 2, "seed": seed, "label_doubts": "off"}
        if kind in ("patches", "frozen"):
            training["grid"] = {"lr": RATES, "weight_decay": DECAYS}
        else:
            model["freeze_backbone"] = False
            fine_tune = {"method": "lora", "lora_rank": 16, "lora_alpha": 16} if kind == "lora" else {"method": "all"}
            training |= {
                "fine_tune": fine_tune,
                "epochs": EPOCHS[name],
                "optimizer": {"lr": 1e-3, "warmup": 0.1, "clip": 1.0},
            }
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "backbone")
            if kind == "patches":
                copy_backbone("patches", "main", folder, Path(scratch))
                mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            else:
                write_untrained_backbone(folder, seed, hidden_size=64, patch_size=size // 8, image_size=size)
                mean, std = MEAN, STD
            recipe = Recipe(
                config.parse(config.Model, model),
                config.parse(config.Training, training),
                config.Dataloader(batch_size=64, num_workers=0),
                Transform(size, 384, False, mean, std),
            )
            classes = int(train.labels.max()) + 1
            backbone = load_backbone(folder)
            if adapted:
                backbone = adapt(backbone, Feed(train, size, mean, std), seed)
            result = train_classifier(backbone, "none", Sets(train, select, test, classes, "none"), recipe)
        parameters = sum(value.numel() for value in result.classifier.state_dict().values())
        return torch.from_numpy(result.val_calib_logits).double().softmax(1).numpy(), 4 * parameters

    return road


ROADS: dict[str, Road] = {
    "majority": majority,
    "histogram, logistic": histogram(
        lambda seed: make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    ),
    "histogram, boosting": histogram(lambda seed: HistGradientBoostingClassifier(random_state=seed)),
    "patches": trained("patches"),
    "small ViT, frozen": trained("frozen"),
    "small ViT, LoRA": trained("lora"),
    "small ViT, all": trained("all"),
    "adapted ViT, frozen": trained("frozen", adapted=True),
    "adapted ViT, LoRA": trained("lora", adapted=True),
    "adapted ViT, all": trained("all", adapted=True),
}


def figures(name: str, seed: int, probabilities: Values) -> dict[str, float]:
    _, _, test = divided(name, seed)
    answer, binary = probabilities.argmax(1), probabilities.shape[1] == 2
    scores = probabilities[:, 1] if binary else probabilities
    return {
        "accuracy": float(accuracy_score(test.labels, answer)),
        "of web": float((answer == test.labels)[test.web].mean()) if test.web.any() else float("nan"),
        "macro-F1": float(f1_score(test.labels, answer, average="macro", zero_division=0)),
        "MCC": float(matthews_corrcoef(test.labels, answer)),
        "AUROC": float(roc_auc_score(test.labels, scores, multi_class="ovr")),
    }


def run_one(road: str, name: str, seed: int) -> None:
    started = time.process_time()
    probabilities, size = ROADS[road](name, seed)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({**figures(name, seed, probabilities), "CPU s": seconds, "MB of memory": peak, "MB": size / 1e6}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--roads", nargs="+", choices=ROADS, default=list(ROADS))
    parser.add_argument("--data", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--one", nargs=3, metavar=("ROAD", "DATA", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one[0], arguments.one[1], int(arguments.one[2]))
        return
    for name in arguments.data:
        table = Table(title=f"{name}, {arguments.seeds} seeds: mean (least to most)")
        table.add_column("road")
        for road in arguments.roads:
            rows = []
            for seed in range(arguments.seeds):
                command = [sys.executable, "-m", "benchmarks.accuracy", "--one", road, name, str(seed)]
                out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                rows.append(json.loads(out.splitlines()[-1]))
            if not table.rows:
                for column in rows[0]:
                    table.add_column(column, justify="right")
            table.add_row(road, *(_shown(column, [row[column] for row in rows]) for column in rows[0]))
        Console(width=160).print(table)


def _shown(column: str, values: list[float]) -> str:
    if np.isnan(values).any():
        return "-"
    if column in ("CPU s", "MB of memory", "MB"):
        return f"{np.mean(values):.3g}"
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})".replace("0.", ".")


if __name__ == "__main__":
    main()
