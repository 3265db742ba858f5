import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from natix_lib.config import EarlyStopping, Optimizer, Training
from natix_lib.errors import TrainingError
from natix_lib.training.classifier import Head
from natix_lib.training.fit import CHECKED_STEPS, Objective, class_weights, fit, metrics_rows
from natix_lib.training.watch import Figures, best_epoch, figures
from natix_lib.training.weights import Ema


def blobs(images: int = 200, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % 2
    return torch.randn(images, 4, generator=generator) + 2 * labels[:, None], labels


def train(head: nn.Module, training: Training, lr_scale: float = 1.0, val=None, at_once: int = 0, **options) -> list:
    features, labels = blobs()
    val_features, val_labels = val or blobs(seed=1)

    def score() -> Figures:
        with torch.no_grad():
            return figures(head(val_features), val_labels)

    def epoch_batches(epoch: int, start: int):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        return [(features[rows] * lr_scale, labels[rows]) for rows in order.split(20)[start:]]

    return fit(
        head, Objective(epoch_batches, 10, None, score, at_once=at_once), training, **{"ema_decay": 0.9, **options}
    )


def test_a_separable_problem_is_learnt_and_the_curve_tells() -> None:
    torch.manual_seed(0)
    head = Head(4, 2, "linear", 0.0)
    history = train(head, Training(epochs=20, optimizer=Optimizer(lr=0.05)))
    assert history[-1].val_select_acc > 0.95
    names, *epochs = metrics_rows(history)
    select = ("val_select/loss", "val_select/acc", "val_select/macro_f1", "val_select/mcc")
    assert names == ("epoch", "step", "lr", "train/loss", "train/acc", *select)
    assert [row[0] for row in epochs] == [epoch.epoch for epoch in history]


@pytest.mark.parametrize("ema_decay", [0.9, None])
def test_the_kept_weights_are_those_that_were_scored_best(ema_decay: float | None) -> None:
    torch.manual_seed(0)
    head = Head(4, 2, "linear", 0.0)
    history = train(head, Training(epochs=15, optimizer=Optimizer(lr=0.3)), ema_decay=ema_decay)
    features, labels = blobs(seed=1)
    kept = figures(head(features), labels)
    best = best_epoch(history, EarlyStopping())
    assert kept.acc == best.val_select_acc
    assert kept.loss == pytest.approx(best.val_select_loss, rel=1e-6)


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
    cure = r"lower training.optimizer.lr, it is 0.001: try 0.0001"
    with pytest.raises(TrainingError, match=rf"training loss is (nan|inf) in epoch 0 \(step 1\): {cure}"):
        train(Head(4, 2, "linear", 0.0), Training(epochs=2), lr_scale=math.inf)


def test_a_long_epoch_is_stopped_soon_after_the_step_that_overflows() -> None:
    overflowing, seen = CHECKED_STEPS + 7, []

    def epoch_batches(epoch: int, start: int):
        for step in range(1, 5 * CHECKED_STEPS):
            seen.append(step)
            yield torch.full((2, 4), math.inf if step == overflowing else 1.0), torch.tensor([0, 1])

    objective = Objective(epoch_batches, 5 * CHECKED_STEPS, None, lambda: Figures(0, 0, 0, 0))
    with pytest.raises(TrainingError, match=rf"loss is nan in epoch 0 \(step {overflowing}\)"):
        fit(Head(4, 2, "linear", 0.0), objective, Training(epochs=1), None)
    assert seen[-1] == 2 * CHECKED_STEPS


class Root(nn.Module):
    """Logits with a finite value whose gradient is NaN, as that of a norm is at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return (self.weight**2).sqrt() + inputs


def test_weights_that_are_not_finite_after_the_last_step_of_an_epoch_stop_it_before_they_are_scored() -> None:
    def score() -> Figures:
        raise AssertionError("scored")

    objective = Objective(lambda epoch, start: [(torch.zeros(1, 2), torch.tensor([0]))], 1, None, score)
    with pytest.raises(TrainingError, match=r"weights are NaN or infinite after epoch 0 \(step 1\): lower .*lr, it is"):
        fit(Root(), objective, Training(epochs=2), None)


def test_a_learning_rate_that_no_float_holds_is_named_with_the_step() -> None:
    match = r"learning rate overflows in epoch 0 \(step 1\): lower training.optimizer.lr, it is 1e\+39: try 1e\+38"
    with pytest.raises(TrainingError, match=match):
        train(Head(4, 2, "linear", 0.0), Training(epochs=2, optimizer=Optimizer(lr=1e39)))


@pytest.mark.parametrize("at_once", [1, 7, 20])
def test_gradients_that_are_accumulated_over_parts_are_those_of_the_batch(at_once: int) -> None:
    heads, curves = [], []
    for size in (0, at_once):
        torch.manual_seed(0)
        heads.append(Head(4, 2, "mlp", 0.0))
        training = Training(epochs=3, optimizer=Optimizer(lr=0.01, clip=0.5), label_smoothing=0.1)
        curves.append(metrics_rows(train(heads[-1], training, at_once=size)))
    for (name, one), other in zip(heads[0].state_dict().items(), heads[1].state_dict().values(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5, msg=name)
    for one, other in zip(*curves, strict=True):
        assert other == pytest.approx(one, rel=1e-4) if one[0] != "epoch" else other == one


@pytest.mark.parametrize(("clip", "moves"), [(0.0, True), (100.0, True), (1e-13, False)])
def test_gradients_are_clipped_by_their_norm(clip: float, moves: bool) -> None:
    torch.manual_seed(0)
    head = Head(4, 2, "linear", 0.0)
    before = head.linear.weight.detach().clone()
    train(head, Training(epochs=1, optimizer=Optimizer(lr=0.1, weight_decay=0.0, clip=clip)), ema_decay=None)
    # Adam divides a gradient by its own size and 1e-8: what is far below that moves nothing
    assert (float((head.linear.weight.detach() - before).abs().max()) > 1e-3) == moves


def test_all_gradients_together_are_clipped_by_one_norm() -> None:
    features, labels = blobs(60)
    parts = [(features[k::3] * scale, labels[k::3]) for k, scale in enumerate((1.0, 10.0, 0.1))]
    heads = []
    for _ in range(2):
        torch.manual_seed(0)
        heads.append(Head(4, 2, "mlp", 0.0))
    settings = Optimizer(lr=0.01, clip=0.3)
    objective = Objective(lambda epoch, start: parts, 3, None, lambda: Figures(1.0, 1.0, 1.0, 1.0))
    fit(heads[0], objective, Training(epochs=1, optimizer=settings), None)
    optimizer = torch.optim.AdamW(heads[1].parameters(), weight_decay=settings.weight_decay)
    clipped = 0
    for step, (inputs, targets) in enumerate(parts):
        nn.functional.cross_entropy(heads[1](inputs), targets).backward()
        norm = float(torch.cat([p.grad.flatten() for p in heads[1].parameters() if p.grad is not None]).norm())
        clipped += norm > settings.clip
        for parameter in heads[1].parameters():
            assert parameter.grad is not None
            parameter.grad *= min(1.0, settings.clip / norm)
        optimizer.param_groups[0]["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / 3))
        optimizer.step()
        optimizer.zero_grad()
    assert 0 < clipped < 3
    for (name, value), other in zip(heads[0].state_dict().items(), heads[1].state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-6, msg=name)


def test_the_rate_of_an_epoch_is_the_highest_of_all_groups_and_rises_first() -> None:
    training = Training(epochs=10, optimizer=Optimizer(lr=0.1, warmup=0.2, decayed="matrices"))
    history = train(Head(4, 2, "linear", 0.0), training)
    rates = [epoch.lr for epoch in history]
    assert rates[0] == pytest.approx(0.1 / 20) and rates[2] == pytest.approx(0.1) and rates[1] < rates[2] > rates[3]


def test_smoothed_labels_keep_a_classifier_from_being_sure() -> None:
    features, _ = blobs()
    sure = []
    for smoothing in (0.0, 0.3):
        torch.manual_seed(0)
        head = Head(4, 2, "linear", 0.0)
        train(head, Training(epochs=20, optimizer=Optimizer(lr=0.1), label_smoothing=smoothing))
        sure.append(float(head(features).detach().softmax(1).max(1).values.mean()))
    assert sure[0] > 0.95 and sure[1] < 0.88  # the best that a smoothed loss knows is 0.85


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
