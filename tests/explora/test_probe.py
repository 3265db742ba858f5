from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from natix_lib.backbones.loading import load_backbone
from natix_lib.config import Dataloader
from natix_lib.explora.probe import features_of, knn_right, linear_right, probe
from natix_lib.transform import Transform


def digits() -> tuple[np.ndarray, ...]:
    x, y = load_digits(return_X_y=True)
    return x[:1200].astype(np.float32), y[:1200], x[1200:].astype(np.float32), y[1200:]


def test_neighbours_agree_with_scikit_learn() -> None:
    x, y, query, truth = digits()
    model = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d - 1) / 0.07)).fit(x, y)
    ours, theirs = knn_right(x, y, query, truth), model.predict(query) == truth
    assert (
        float(ours.mean()) == pytest.approx(float(theirs.mean()), abs=0.004) and float((ours == theirs).mean()) > 0.99
    )


def test_the_scale_of_features_changes_nothing() -> None:
    x, y, query, truth = digits()
    one = probe(x, y, query, truth)
    two = probe(7 * x, y, 7 * query, truth)
    assert one.accuracies == pytest.approx(two.accuracies, abs=0.005) and one.accuracies["linear"] > 0.9
    assert float(one.right.mean()) == pytest.approx(sum(one.accuracies.values()) / 2)


def test_noise_probes_at_chance() -> None:
    generator = np.random.default_rng(0)
    x, query = generator.normal(size=(400, 8)).astype(np.float32), generator.normal(size=(400, 8)).astype(np.float32)
    y, truth = generator.integers(0, 4, 400), generator.integers(0, 4, 400)
    assert linear_right(x, y, query, truth).mean() < 0.35 and knn_right(x, y, query, truth).mean() < 0.35


def test_fewer_images_than_neighbours_are_enough() -> None:
    x, y = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    assert knn_right(x, y, x, y).all()


class Noise:
    """Images of noise."""

    def __init__(self) -> None:
        self.ids = ["a", "b", "c"]

    def __len__(self) -> int:
        return 3

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def test_features_of_a_lower_precision_are_rounded_and_float32(tiny_backbone: Path) -> None:
    backbone, transform = load_backbone(tiny_backbone), Transform(32, 32, False, (0.5,) * 3, (0.2,) * 3)
    plain = features_of(backbone, Noise(), transform, Dataloader(num_workers=0))
    rounded = features_of(backbone, Noise(), transform, Dataloader(num_workers=0), autocast=torch.bfloat16)
    assert plain.dtype == rounded.dtype == np.float32 and not np.array_equal(plain, rounded)
    assert np.linalg.norm(rounded - plain) < 0.05 * np.linalg.norm(plain)
