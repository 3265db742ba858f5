"""Heads of many settings on cached features, trained at once, and the one that VAL_SELECT speaks for.

The best learning rate of a head differs by a factor of a hundred between backbones, and on cached features another head
costs next to nothing: each batch is read once, and one batched product serves all heads of a pooling (the DINOv2
protocol, Oquab et al., arXiv 2304.07193). Poolings are features side by side, of which each head sees its own. Each
head is what `fit` would make of it alone: same first weights, batches, schedule, average and epoch to keep; only
dropout draws other numbers. The optimiser is that of `training/adamw.py`, with a rate and a decay for each head.

Which head is kept resists noise: the highest of many accuracies on a small VAL_SELECT is luck in part. Heads that are
behind the best by no more than a standard error of the difference, of the same images and by groups, count as equally
good, and of these the lowest loss, which is no step function, decides. With the monitor val_select/loss that is the
lowest loss itself; for macro-F1 and Matthews' correlation, of which no image has a part of its own, the best is kept.

Nothing is written between epochs: a grid that was killed takes seconds to minutes and repeats itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natix_lib.config import Model, Training
from natix_lib.documents import Pooling
from natix_lib.errors import TrainingError
from natix_lib.training.batched_heads import Heads, Point
from natix_lib.training.classifier import Head
from natix_lib.training.fit import Epoch
from natix_lib.training.tuning import rate
from natix_lib.training.watch import compared, figures, ranked
from natix_lib.training.weights import set_trainable_state


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
        columns: Which features are those of a pooling, (F',); one that is not named takes all.
    """

    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    steps_an_epoch: int
    select: Tensor
    select_labels: Tensor
    select_groups: Sequence[str]
    weights: Tensor | None
    columns: Mapping[tuple[Pooling, ...], Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Chosen:
    """What a grid gives: the kept head's history, and for each point its settings and its best epoch's figures."""

    history: list[Epoch]
    table: list[dict[str, Any]]
    row: int


def points(training: Training, model: Model) -> list[Point]:
    """The points of the grid; one where the config asks for none.

    Args:
        training: Each empty list of its `grid` stands for the value of the plain key.
        model: It has the plain keys of dropout and pooling.
    """
    grid, optimizer = training.grid, training.optimizer
    axes = (
        [tuple(names) for names in grid.pooling or [model.pooling]],  # first, as heads of one are computed together
        grid.dropout_rate or [model.dropout_rate],
        grid.lr or [optimizer.lr],
        grid.weight_decay or [optimizer.weight_decay],
    )
    return [Point(lr, weight_decay, dropout, pooling) for pooling, dropout, lr, weight_decay in product(*axes)]


def fit_grid(
    heads: Mapping[tuple[Pooling, ...], Head],
    of: Sequence[Point],
    bank: Bank,
    training: Training,
    ema_decay: float | None,
    on_epoch: Callable[[Epoch], None] = lambda row: None,
) -> Chosen:
    """Train a head for each point, and leave the chosen one's weights and dropout in the head of its pooling.

    Args:
        heads: An untrained head for each pooling of the points, standardised, on the device to use.
        of: Points of `points`, those of the same pooling, and then of the same dropout, beside each other.
        bank: What they are trained and compared on.
        training: Epochs, schedule, early stopping, which is each head's own.
        ema_decay: Decay of the averages that are scored and kept; None trains without.
        on_epoch: Called after each epoch with the best head of it.

    Returns:
        The chosen head's history, and the table of all.

    Raises:
        TrainingError: If no head has a finite loss.
    """
    parts, where = [], []
    for pooling, alike in groupby(of, key=lambda point: point.pooling):
        own = list(alike)
        part = Heads(heads[pooling], own, bank.columns.get(pooling), training.optimizer, ema_decay)
        parts.append(part)
        where += [(part, number) for number in range(len(own))]
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
            done = [part.trained(inputs, labels, bank.weights, training.label_smoothing) for part in parts]
            for part in parts:
                part.step(rate(step, total, training.optimizer.warmup))
            step += 1
            losses, hits = (torch.cat(values) for values in zip(*done, strict=True))
            sums += torch.stack([losses * len(labels), hits])
            seen += len(labels)
        of_select = torch.cat([part.scored(bank.select) for part in parts]).mean(dim=2)
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
                part, row_of_part = where[number]
                part.keep(row_of_part)
        if not rows:
            break
        on_epoch(max(rows, key=lambda row: ranked(row, training.early_stopping)))
        if min(stale) >= training.early_stopping.patience:
            break
    row_number = chosen(best, right, bank.select_groups, training)
    part, row_of_part = where[row_number]
    head = heads[of[row_number].pooling]
    set_trainable_state(head, {name: value[row_of_part] for name, value in part.kept.items()})
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


def _described(point: Point, row: Epoch | None, kept: bool) -> dict[str, Any]:
    """A line of the table; a head that has no finite epoch has its settings alone."""
    settings = {**asdict(point), "pooling": "+".join(point.pooling), "kept": kept}
    if row is None:
        return settings
    select = {name: value for name, value in asdict(row).items() if name.startswith("val_select")}
    return {**settings, "epoch": row.epoch, "train_loss": row.train_loss, **select}
