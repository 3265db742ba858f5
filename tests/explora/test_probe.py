import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from natix_lib.explora.probe import knn_right, linear_right, probe


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
