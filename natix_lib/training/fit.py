"""One training loop for a head on cached features and for a whole network on pixels.

The loop sees batches and a model; whether a batch holds features or pixels is the caller's affair. AdamW with a
cosine to zero; an EMA of the trainable parameters by name; the weights of the best epoch are kept, and they are the
weights that were scored: with the EMA on, the EMA's. Lightning was rejected here: a step of head training takes a
fraction of a millisecond, less than a Lightning step's overhead, and one plain loop serves both cases.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from natix_lib.config import Training
from natix_lib.distributed.world import ALONE, World
from natix_lib.errors import TrainingError
from natix_lib.training.checks import lower_lr, lr_overflow_named, require_finite_weights
from natix_lib.training.watch import Figures, ranked

CHECKED_STEPS = 100  # between two looks whether losses are finite: each waits for the GPU


@dataclass(frozen=True)
class Epoch:
    """A row of metrics.csv; losses in nats, accuracies and macro-F1 in [0, 1], Matthews' correlation in [-1, 1]."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_acc: float
    val_select_loss: float
    val_select_acc: float
    val_select_macro_f1: float
    val_select_mcc: float


def metrics_rows(history: Iterable[Epoch]) -> list[tuple[object, ...]]:
    """The rows of metrics.csv: the fields' names (`val_select/acc`), then one row an epoch."""
    select = [f"val_select/{name}" for name in Figures._fields]
    names = ("epoch", "step", "lr", "train/loss", "train/acc", *select)
    return [names, *(astuple(epoch) for epoch in history)]


class Ema:
    """Exponential moving average of the trainable parameters of a module, by name.

    The decay is warmed up, min(decay, (1 + t) / (10 + t)), so that a short run is not an average of its random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start from the current parameters."""
        self.decay = decay
        self.steps = 0
        self.values = trainable_state(module)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the current parameters."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                self.values[name].lerp_(parameter, 1 - decay)


def trainable_state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the trainable parameters, by name."""
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


@torch.no_grad()
def set_trainable_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Put `state` into exactly the trainable parameters."""
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for name, value in state.items():
        parameters[name].copy_(value)


@contextmanager
def holding(module: nn.Module, state: dict[str, Tensor] | None) -> Iterator[None]:
    """Run a block with other trainable parameters; None changes nothing."""
    if state is None:
        yield
        return
    before = trainable_state(module)
    set_trainable_state(module, state)
    try:
        yield
    finally:
        set_trainable_state(module, before)


def class_weights(labels: Tensor, classes: int, rule: str) -> Tensor | None:
    """`balanced`: n / (C n_c), scikit-learn's rule, float32 (C,); `none`: None."""
    if rule == "none":
        return None
    counts = torch.bincount(labels, minlength=classes).clamp_min(1)
    return len(labels) / (classes * counts.float())


@dataclass(frozen=True)
class Objective:
    """What a model is fitted to, and what its epochs are compared by.

    Attributes:
        batches: Epoch number to batches of inputs and labels, on the model's device; with several processes each
            one's share of the batches, which may be empty.
        steps_an_epoch: How many batches it gives.
        weights: Weight of each class in the loss, (C,); None weighs all alike.
        score: The figures of VAL_SELECT of the model as it stands.
    """

    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]]
    steps_an_epoch: int
    weights: Tensor | None
    score: Callable[[], Figures]


def fit(
    model: nn.Module,
    objective: Objective,
    training: Training,
    ema_decay: float | None,
    on_epoch: Callable[[Epoch], None] = lambda row: None,
    autocast: torch.dtype | None = None,
    world: World = ALONE,
) -> list[Epoch]:
    """Train the trainable parameters of `model` and leave the best epoch's in it.

    Args:
        model: Maps the inputs of a batch to logits; parameters that must not change have `requires_grad` False.
        objective: Batches to fit, and the score that chooses an epoch.
        training: Epochs, optimiser, early stopping.
        ema_decay: Decay of the average of weights that is scored and kept; None trains without one.
        on_epoch: Called after each epoch.
        autocast: Precision of the model on a GPU; None computes in float32.
        world: The processes that train together, with the same start, labels and seed.

    Returns:
        One row an epoch. The best is the one with the best `early_stopping.monitor`, the lower loss breaking ties.

    Raises:
        TrainingError: If a loss or weight is not finite, naming the epoch, the step and the learning rate.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    optimizer = torch.optim.AdamW(parameters, lr=training.optimizer.lr, weight_decay=training.optimizer.weight_decay)
    total = training.epochs * objective.steps_an_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / total)))
    scaler = torch.amp.GradScaler(device.type, enabled=autocast is torch.float16)
    ema = Ema(model, ema_decay) if ema_decay is not None else None
    history: list[Epoch] = []
    best: Epoch | None = None
    best_state: dict[str, Tensor] = {}
    stale = step = 0
    cure = lower_lr(training.optimizer.lr)
    for epoch in range(training.epochs):
        lr = float(schedule.get_last_lr()[0])
        loss_sum = torch.zeros((), device=device)
        correct = torch.zeros((), device=device, dtype=torch.long)
        losses: list[Tensor] = []
        seen = 0
        for inputs, labels in objective.batches(epoch):
            with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
                logits = model(inputs)
            loss, count = _loss(logits.float(), labels, objective.weights, world)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            world.sum_gradients(parameters)
            with lr_overflow_named(f"in epoch {epoch} (step {step + 1}): {cure}"):
                scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            step += 1
            if ema:
                ema.update(model)
            losses.append(loss.detach())
            loss_sum += losses[-1] * count
            correct += (logits.detach().argmax(1) == labels).sum()
            seen += count
            if len(losses) == CHECKED_STEPS:
                _require_finite(losses, epoch, step, cure, world)
                losses.clear()
        _require_finite(losses, epoch, step, cure, world)
        train_loss = float(world.summed(loss_sum)) / seen
        if not math.isfinite(train_loss):
            raise TrainingError(f"training loss is {train_loss} in epoch {epoch} (step {step}): {cure}")
        require_finite_weights(parameters, f"after epoch {epoch} (step {step}): {cure}")
        with holding(model, ema.values if ema else None):
            select = Figures(*world.of_first(objective.score()))
            if not math.isfinite(select.loss):
                raise TrainingError(f"val_select loss is {select.loss} in epoch {epoch} (step {step}): {cure}")
            row = Epoch(epoch, step, lr, train_loss, int(world.summed(correct)) / seen, *select)
            rank = ranked(row, training.early_stopping)
            if best is None or rank > ranked(best, training.early_stopping):
                stale = 0 if best is None or rank[0] > ranked(best, training.early_stopping)[0] else stale + 1
                best, best_state = row, trainable_state(model)
            else:
                stale += 1
        history.append(row)
        on_epoch(row)
        if stale >= training.early_stopping.patience:
            break
    set_trainable_state(model, best_state)
    return history


def _require_finite(losses: Sequence[Tensor], epoch: int, step: int, cure: str, world: World) -> None:
    """Refuse the losses of the last steps, up to number `step` from 1, if one is NaN or infinite in any process."""
    values = world.summed(torch.stack([*losses])).tolist() if losses else []
    first = next((row for row, value in enumerate(values) if not math.isfinite(value)), None)
    if first is not None:
        number = step - len(values) + first + 1
        raise TrainingError(f"training loss is {values[first]} in epoch {epoch} (step {number}): {cure}")


def _loss(logits: Tensor, labels: Tensor, weights: Tensor | None, world: World) -> tuple[Tensor, int]:
    """A process's part of the whole batch's weighted mean cross-entropy, and how many images the whole batch has."""
    if world.size == 1:
        return cross_entropy(logits, labels, weight=weights), len(labels)
    each = torch.ones_like(labels, dtype=torch.float32) if weights is None else weights[labels]
    weight, count = world.summed(torch.stack([each.sum(), torch.ones_like(each).sum()]))
    return cross_entropy(logits, labels, weight=weights, reduction="sum") / weight, int(count)
