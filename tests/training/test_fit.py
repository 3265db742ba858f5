import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from natix_lib.config import EarlyStopping, Optimizer, Training
from natix_lib.errors import TrainingError
from natix_lib.training.classifier import Head
from natix_lib.training.fit import Ema, Objective, best_epoch, class_weights, fit, mean_loss_and_accuracy, metrics_rows


def blobs(images: int = 200, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % 2
    return torch.randn(images, 4, generator=generator) + 2 * labels[:, None], labels


def train(head: nn.Module, training: Training, lr_scale: float = 1.0, val=None, **options) -> list:
    features, labels = blobs()
    val_features, val_labels = val or blobs(seed=1)

    def score() -> tuple[float, float]:
        with torch.no_grad():
            return mean_loss_and_accuracy(head(val_features), val_labels)

    def epoch_batches(epoch: int, start: int):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        return [(features[rows] * lr_scale, labels[rows]) for rows in order.split(20)[start:]]

    return fit(head, Objective(epoch_batches, 10, None, score), training, **{"ema_decay": 0.9, **options})


def test_a_separable_problem_is_learnt_and_the_curve_tells() -> None:
    torch.manual_seed(0)
    head = Head(4, 2, "linear", 0.0)
    history = train(head, Training(epochs=20, optimizer=Optimizer(lr=0.05)))
    assert history[-1].val_select_acc > 0.95
    names, *epochs = metrics_rows(history)
    assert names == ("epoch", "step", "lr", "train/loss", "train/acc", "val_select/loss", "val_select/acc")
    assert [row[0] for row in epochs] == [epoch.epoch for epoch in history]


@pytest.mark.parametrize("ema_decay", [0.9, None])
def test_the_kept_weights_are_those_that_were_scored_best(ema_decay: float | None) -> None:
    torch.manual_seed(0)
    head = Head(4, 2, "linear", 0.0)
    history = train(head, Training(epochs=15, optimizer=Optimizer(lr=0.3)), ema_decay=ema_decay)
    features, labels = blobs(seed=1)
    loss, accuracy = mean_loss_and_accuracy(head(features), labels)
    best = best_epoch(history)
    assert accuracy == best.val_select_acc
    assert loss == pytest.approx(best.val_select_loss, rel=1e-6)


def test_training_stops_when_accuracy_no_longer_rises() -> None:
    features, labels = blobs(seed=1)
    head = Head(4, 2, "linear", 0.0)
    history = train(
        head,
        Training(epochs=50, optimizer=Optimizer(lr=1e-9), early_stopping=EarlyStopping(patience=3)),
        val=(features, labels),
    )
    assert len(history) == 4


def test_a_loss_that_is_not_finite_stops_with_the_epoch_and_the_step() -> None:
    with pytest.raises(TrainingError, match=r"training loss is (nan|inf) in epoch 0 \(step 10\)"):
        train(Head(4, 2, "linear", 0.0), Training(epochs=2), lr_scale=math.inf)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = torch.tensor([0] * 7 + [1] * 2 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    balanced = class_weights(labels, 3, "balanced")
    assert balanced is not None and balanced.tolist() == pytest.approx(expected.tolist())
    assert class_weights(labels, 3, "none") is None


def test_the_average_of_constant_weights_is_those_weights() -> None:
    head = nn.Linear(3, 2)
    ema = Ema(head, 0.99)
    for _ in range(5):
        ema.update(head)
    assert torch.allclose(ema.values["weight"], head.weight)


def test_the_average_follows_its_formula() -> None:
    head = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        head.weight.fill_(0.0)
        ema = Ema(head, 0.5)
        head.weight.fill_(1.0)
    ema.update(head)
    decay = min(0.5, 2 / 11)
    assert ema.values["weight"].item() == pytest.approx(1 - decay)


def test_standardisation_gives_zero_mean_and_unit_spread_and_leaves_constants() -> None:
    features = torch.randn(500, 3) * 7 + 3
    features[:, 2] = 5
    head = Head(3, 2, "linear", 0.0)
    head.standardise(features)
    scaled = (features - head.mean) * head.scale
    assert torch.allclose(scaled.mean(0), torch.zeros(3), atol=1e-5)
    assert scaled.std(0, correction=0).tolist() == pytest.approx([1, 1, 0], abs=1e-4)
