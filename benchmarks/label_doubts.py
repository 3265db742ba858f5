"""How many labels that were made wrong are found by `training.label_doubts`, beside cleanlab in the same run.

5 % of the labels are changed to another class: of photographs, each a group of its own; of stretches of 15 frames of
the three drives; of CIFAR-10; and of scikit-learn's digits, whose pixels are features that tell classes well. Precision
is that of the first 5 %, as many as were changed. Peers: cleanlab on natix's probabilities, its defaults, ranked by
normalised margin; and cleanlab's own cross-validation of the same model, which knows no groups. Features are those of
`natix backbone`, a DINOv3 of random weights: pre-trained weights could not be had where this was measured, and any
would find more. Data: NATIX_TEST_DATA. Run: `python -m benchmarks.label_doubts`.
"""

import csv
import io
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from natix_lib.backbones.features import Extractor
from natix_lib.backbones.loading import load_backbone
from natix_lib.config import Dataloader
from natix_lib.demo.backbone import write_untrained_backbone
from natix_lib.training.doubts import FOLDS, ITERATIONS, STRENGTH, label_doubts, out_of_fold
from natix_lib.training.features import extract
from natix_lib.training.views import Views
from natix_lib.transform import Transform

DATA = Path(os.environ.get("NATIX_TEST_DATA", "../shared/data"))
SEEDS, WRONG, STRETCH, CIFAR = 3, 0.05, 15, 3_000


@dataclass(frozen=True)
class Set:
    """Features (n, F), labels (n,), groups, and the runs of images that are changed together, as numbers (n,)."""

    name: str
    features: np.ndarray
    labels: np.ndarray
    groups: list[str]
    runs: np.ndarray


class Pictures:
    """Encoded images in memory."""

    def __init__(self, ids: list[str], content: list[bytes]) -> None:
        self.ids, self._content = ids, content

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self._content[index])).convert("RGB")


def features_of(content: list[bytes], size: int, patch: int) -> np.ndarray:
    """Features of a backbone of random weights."""
    with tempfile.TemporaryDirectory() as scratch:
        write_untrained_backbone(Path(scratch) / "backbone", patch_size=patch, image_size=size)
        backbone = load_backbone(Path(scratch) / "backbone").eval()
    pictures = Pictures([str(number) for number in range(len(content))], content)
    transform = Transform(size, size, False, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    features = extract(Extractor(backbone), Views(pictures, transform, 0), Dataloader(batch_size=64, num_workers=0))
    return features[:, 0].numpy()


def roadwork() -> list[Set]:
    """The photographs changed one by one, and the drives' frames in stretches."""
    folder = DATA / "roadwork-real"
    with (folder / "manifest.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["image"])
    features = features_of([(folder / row["image"]).read_bytes() for row in rows], 112, 16)
    labels = np.array([row["label"] == "Roadwork" for row in rows]).astype(np.int64)
    filmed = np.array([row["source"] == "camvid" for row in rows])
    groups = [row["group"] for row in rows]
    one = np.where(filmed, -1, np.arange(len(rows)))
    stretches = np.where(filmed, np.arange(len(rows)) // STRETCH, -1)
    return [
        Set("roadwork-real, photographs", features, labels, groups, one),
        Set(f"roadwork-real, {STRETCH} frames at once", features, labels, groups, stretches),
    ]


def cifar() -> Set:
    """Images of CIFAR-10, each a group of its own."""
    table = pq.read_table(DATA / "cifar10-part" / "train.parquet").slice(0, CIFAR)
    content = [value["bytes"] for value in table.column("image").to_pylist()]
    labels = np.array(table.column("label").to_pylist())
    numbers = np.arange(len(labels))
    return Set("cifar10-part", features_of(content, 32, 4), labels, [str(number) for number in numbers], numbers)


def digits() -> Set:
    """Pixels of digits as features, each image a group of its own."""
    pixels, labels = load_digits(return_X_y=True)
    numbers = np.arange(len(labels))
    return Set("digits, pixels", pixels.astype(np.float32), labels, [str(number) for number in numbers], numbers)


def damaged(clean: Set, seed: int) -> Set:
    """5 % of the labels changed, whole runs at a time."""
    generator = np.random.default_rng(seed)
    labels, classes = clean.labels.copy(), int(clean.labels.max()) + 1
    left = round(WRONG * len(labels))
    for run in generator.permutation(np.unique(clean.runs[clean.runs >= 0])).tolist():
        rows = np.flatnonzero(clean.runs == run)[:left]
        labels[rows] = (labels[rows] + generator.integers(1, classes)) % classes
        left -= len(rows)
        if not left:
            break
    return replace(clean, labels=labels)


def by_natix(data: Set, classes: int, seed: int) -> np.ndarray:
    return np.array(label_doubts(data.features, data.labels, data.groups, classes, seed).rows, dtype=np.int64)


def by_natix_without_groups(data: Set, classes: int, seed: int) -> np.ndarray:
    return by_natix(replace(data, groups=[str(row) for row in range(len(data.labels))]), classes, seed)


def by_cleanlab(data: Set, classes: int, seed: int) -> np.ndarray:
    from cleanlab.filter import find_label_issues

    given, _ = out_of_fold(data.features, data.labels, data.groups, classes, seed)
    found: np.ndarray = find_label_issues(data.labels, given, return_indices_ranked_by="normalized_margin")
    return found


def by_cleanlab_rule(data: Set, classes: int, seed: int) -> np.ndarray:
    from cleanlab.filter import find_label_issues

    given, _ = out_of_fold(data.features, data.labels, data.groups, classes, seed)
    found: np.ndarray = find_label_issues(
        data.labels, given, return_indices_ranked_by="normalized_margin", filter_by="confident_learning"
    )
    return found


def by_cleanlab_alone(data: Set, classes: int, seed: int) -> np.ndarray:
    from cleanlab.classification import CleanLearning

    model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=ITERATIONS))
    issues = CleanLearning(model, seed=seed, cv_n_folds=FOLDS).find_label_issues(data.features, data.labels)
    rows = np.flatnonzero(issues["is_label_issue"])
    order: np.ndarray = rows[np.argsort(issues["label_quality"].to_numpy()[rows], kind="stable")]
    return order


FINDERS: dict[str, Callable[[Set, int, int], np.ndarray]] = {
    "natix": by_natix,
    "natix, no groups": by_natix_without_groups,
    "cleanlab on natix's probabilities": by_cleanlab,
    "the same, filter_by confident_learning": by_cleanlab_rule,
    "cleanlab's own cross-validation": by_cleanlab_alone,
}


def main() -> None:
    for data in (*roadwork(), digits(), cifar()):
        table = Table(title=f"{data.name}: {WRONG:.0%} of {len(data.labels)} labels made wrong, mean of {SEEDS} seeds")
        for column in ("finder", "precision of the first 5 %", "listed", "of these wrong", "found", "CPU seconds"):
            table.add_column(column, justify="left" if column == "finder" else "right")
        for name, finder in FINDERS.items():
            table.add_row(name, *measured(data, finder))
        Console(width=120).print(table)


def measured(clean: Set, finder: Callable[[Set, int, int], np.ndarray]) -> list[str]:
    """Precision of as many as were changed, how many are listed, the share of these that were changed, and seconds."""
    figures = []
    for seed in range(SEEDS):
        data = damaged(clean, seed)
        wrong = data.labels != clean.labels
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = finder(data, int(clean.labels.max()) + 1, seed)
        spent = time.process_time() - start
        count, hits = int(wrong.sum()), int(wrong[rows].sum())
        figures.append((wrong[rows[:count]].sum() / count, len(rows), hits / max(len(rows), 1), hits / count, spent))
    first, listed, precision, recall, spent = np.mean(figures, axis=0)
    return [f"{first:.2f}", f"{listed:.0f}", f"{precision:.2f}", f"{recall:.2f}", f"{spent:.1f}"]


if __name__ == "__main__":
    main()
