"""Heads of many settings on cached features, trained at once, and the one that VAL_SELECT speaks for.

The best learning rate of a head differs by a factor of a hundred between backbones, and on cached features another head
costs next to nothing: each batch is read once, and one batched product serves all heads (the DINOv2 protocol, Oquab et
al., arXiv 2304.07193). Each head is what `fit` would make of it alone: same first weights, batches, schedule, average
and epoch to keep; only dropout draws other numbers. The
optimiser is that of `training/adamw.py`, with a rate and a decay for each head.

Which head is kept resists noise: the highest of many accuracies on a small VAL_SELECT is luck in part. Heads that are
behind the best by no more than a standard error of the difference, of the same images and by groups, count as equally
good, and of these the lowest loss, which is no step function, decides. With the monitor val_select/loss that is the
lowest loss itself; for macro-F1 and Matthews' correlation, of which no image has a part of its own, the best is kept.

Nothing is written between epochs: a grid that was killed takes seconds to minutes and repeats itself.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

from natix_lib.config import Optimizer, Training
from natix_lib.errors import TrainingError
from natix_lib.training.adamw import AdamW
from natix_lib.training.classifier import Head
from natix_lib.training.fit import Epoch
from natix_lib.training.tuning import rate
from natix_lib.training.watch import compared, figures, ranked
from natix_lib.training.weights import set_trainable_state, trainable_state, warmed


@dataclass(frozen=True)
class Point:
    """Settings of a head: highest learning rate, weight decay, and share of features that dropout hides."""

    lr: float
    weight_decay: float
    dropout_rate: float


@dataclass(frozen=True)
class Bank:
    """Features that heads are trained and compared on.

    Attributes:
        batches: Epoch number to batches of features (b, F) and class numbers (b,), on the device of the head.
        steps_an_epoch: How many batches it gives.
        select: Features of the views of VAL_SELECT, (n, V, F).
        select_labels: Its class numbers, (n,).
        select_groups: Its groups, n texts.
        weights: Weight of each class in the loss, (C,); None weighs all alike.
    """

    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    steps_an_epoch: int
    select: Tensor
    select_labels: Tensor
    select_groups: Sequence[str]
    weights: Tensor | None


@dataclass(frozen=True)
class Chosen:
    """What a grid gives: the kept head's history, and for each point its settings and its best epoch's figures."""

    history: list[Epoch]
    table: list[dict[str, float]]
    row: int


def points(training: Training, dropout_rate: float) -> list[Point]:
    """The points of the grid; one where the config asks for none.

    Args:
        training: Each empty list of its `grid` stands for the value of the plain key.
        dropout_rate: The plain key of dropout.
    """
    grid, optimizer = training.grid, training.optimizer
    axes = (
        grid.dropout_rate or [dropout_rate],  # first, as heads of the same one are computed together
        grid.lr or [optimizer.lr],
        grid.weight_decay or [optimizer.weight_decay],
    )
    return [Point(lr, weight_decay, dropout) for dropout, lr, weight_decay in product(*axes)]


class _Heads:
    """Trainable parameters of all heads, each a tensor (E, ...), and what computes with them."""

    def __init__(self, head: Head, of: Sequence[Point]) -> None:
        self.values = {
            name: value.expand(len(of), *value.shape).clone().requires_grad_()
            for name, value in trainable_state(head).items()
        }
        self.groups: list[tuple[slice, Head]] = []
        first = 0
        for dropout in dict.fromkeys(point.dropout_rate for point in of):
            many = sum(point.dropout_rate == dropout for point in of)
            alike = deepcopy(head)
            alike.dropout.p = dropout
            self.groups.append((slice(first, first + many), alike))
            first += many

    def logits(self, values: dict[str, Tensor], features: Tensor, training: bool) -> Tensor:
        """Logits (E, ..., C) of features (..., F)."""
        parts = []
        for rows, head in self.groups:
            head.train(training)

            def of_one(own: dict[str, Tensor], inputs: Tensor, head: Head = head) -> Tensor:
                answer: Tensor = functional_call(head, own, (inputs,))
                return answer

            own = {name: value[rows] for name, value in values.items()}
            parts.append(vmap(of_one, in_dims=(0, None), randomness="different")(own, features))
        return torch.cat(parts)


def fit_grid(
    head: Head,
    of: Sequence[Point],
    bank: Bank,
    training: Training,
    ema_decay: float | None,
    on_epoch: Callable[[Epoch], None] = lambda row: None,
) -> Chosen:
    """Train a head for each point, and leave the chosen one's weights and dropout in `head`.

    Args:
        head: An untrained head, standardised, on the device to use.
        of: Points of `points`, those of the same dropout beside each other.
        bank: What they are trained and compared on.
        training: Epochs, schedule, early stopping, which is each head's own.
        ema_decay: Decay of the averages that are scored and kept; None trains without.
        on_epoch: Called after each epoch with the best head of it.

    Returns:
        The chosen head's history, and the table of all.

    Raises:
        TrainingError: If no head has a finite loss.
    """
    heads = _Heads(head, of)
    optimizer = AdamW(
        heads.values,
        [point.lr for point in of],
        [point.weight_decay for point in of],
        training.optimizer.decayed,
    )
    kept = {name: value.detach().clone() for name, value in heads.values.items()}
    average = {name: value.detach().clone() for name, value in heads.values.items()} if ema_decay is not None else None
    histories: list[list[Epoch]] = [[] for _ in of]
    best: list[Epoch | None] = [None] * len(of)
    right = np.zeros((len(of), len(bank.select_labels)), dtype=bool)
    stale = [0] * len(of)
    total, step = training.epochs * bank.steps_an_epoch, 0
    for epoch in range(training.epochs):
        share = rate(step, total, training.optimizer.warmup)
        sums = torch.zeros(2, len(of), device=bank.select.device)
        seen = 0
        for inputs, labels in bank.batches(epoch):
            logits = heads.logits(heads.values, inputs, training=True)
            losses = _losses(logits, labels, bank.weights, training.label_smoothing)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            _clip(heads.values, training.optimizer)
            optimizer.step(rate(step, total, training.optimizer.warmup))
            step += 1
            if average is not None and ema_decay is not None:
                now = [heads.values[name].detach() for name in average]
                torch._foreach_lerp_(list(average.values()), now, 1 - warmed(ema_decay, step))
            with torch.no_grad():
                sums += torch.stack([losses * len(labels), (logits.argmax(-1) == labels).sum(dim=1)])
            seen += len(labels)
        values = average if average is not None else heads.values
        with torch.no_grad():
            of_select = heads.logits(values, bank.select, training=False).mean(dim=2)
        train = (sums / seen).tolist()
        rows = []
        for number, point in enumerate(of):
            select = figures(of_select[number], bank.select_labels)
            row = Epoch(epoch, step, share * point.lr, train[0][number], train[1][number], *select)
            finite = np.isfinite(select.loss) and np.isfinite(row.train_loss)
            if stale[number] >= training.early_stopping.patience or not finite:
                stale[number] = training.epochs  # this head has ended
                continue
            histories[number].append(row)
            rows.append(row)
            better, risen = compared(row, best[number], training.early_stopping)
            stale[number] = 0 if risen else stale[number] + 1
            if better:
                best[number] = row
                right[number] = (of_select[number].argmax(1) == bank.select_labels).cpu().numpy()
                for name, value in kept.items():
                    value[number] = values[name][number].detach()
        if not rows:
            break
        on_epoch(max(rows, key=lambda row: ranked(row, training.early_stopping)))
        if min(stale) >= training.early_stopping.patience:
            break
    row_number = chosen(best, right, bank.select_groups, training)
    set_trainable_state(head, {name: value[row_number] for name, value in kept.items()})
    head.dropout.p = of[row_number].dropout_rate
    table = [
        _described(point, row, number == row_number) for number, (point, row) in enumerate(zip(of, best, strict=True))
    ]
    return Chosen(histories[row_number], table, row_number)


def chosen(best: Sequence[Epoch | None], right: NDArray[np.bool_], groups: Sequence[str], training: Training) -> int:
    """Which head is kept, by the rule of the module's docstring.

    Args:
        best: The best epoch of each of E heads; None where it has none.
        right: Which images of VAL_SELECT each classifies right then, (E, n).
        groups: Groups of these images, n texts.
        training: Its early stopping says what is monitored.

    Returns:
        A row number.

    Raises:
        TrainingError: If no head has an epoch.
    """
    rows = {number: row for number, row in enumerate(best) if row is not None}
    if not rows:
        raise TrainingError("no head of training.grid has a finite loss: lower the rates of training.grid.lr")
    first = max(rows, key=lambda number: ranked(rows[number], training.early_stopping))
    if training.early_stopping.monitor != "val_select/acc":
        return first
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    equal = []
    for number in rows:
        lead = right[first].astype(float) - right[number]
        of_groups = np.bincount(group, weights=lead - lead.mean())
        if lead.mean() <= np.sqrt(np.square(of_groups).sum()) / len(lead):
            equal.append(number)
    return min(equal, key=lambda number: (rows[number].val_select_loss, number))


def _losses(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Weighted mean cross-entropy of each head, (E,), of logits (E, b, C)."""
    every = cross_entropy(
        logits.flatten(0, 1).float(),
        labels.repeat(len(logits)),
        weight=weights,
        reduction="none",
        label_smoothing=smoothing,
    )
    weight = len(labels) if weights is None else weights[labels].sum()
    return every.view(len(logits), -1).sum(dim=1) / weight


@torch.no_grad()
def _clip(values: dict[str, Tensor], optimizer: Optimizer) -> None:
    """Scale each head's gradients so that their norm is at most `clip`."""
    if not optimizer.clip:
        return
    gradients = [value.grad for value in values.values() if value.grad is not None]
    norm = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    share = (optimizer.clip / (norm + 1e-6)).clamp_max(1.0)
    for gradient in gradients:
        gradient.mul_(share.view(-1, *[1] * (gradient.ndim - 1)))


def _described(point: Point, row: Epoch | None, kept: bool) -> dict[str, float]:
    """A line of the table; a head that has no finite epoch has its settings alone."""
    settings: dict[str, float] = {**asdict(point), "kept": kept}
    if row is None:
        return settings
    select = {name: value for name, value in asdict(row).items() if name.startswith("val_select")}
    return {**settings, "epoch": row.epoch, "train_loss": row.train_loss, **select}
