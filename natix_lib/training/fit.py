"""One training loop for a head on cached features and for a whole network on pixels.

The loop sees batches and a model; whether a batch holds features or pixels is the caller's affair. AdamW with a
cosine to zero; an EMA of the trainable parameters by name; the weights of the best epoch are kept, and they are the
weights that were scored: with the EMA on, the EMA's. Lightning was rejected here: a step of head training takes a
fraction of a millisecond, less than a Lightning step's overhead, and one plain loop serves both cases.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from natix_lib.config import Training
from natix_lib.distributed.world import ALONE, World
from natix_lib.errors import TrainingError
from natix_lib.training.keeper import Keeper
from natix_lib.training.loop import LoopState, Stateful
from natix_lib.training.weights import Ema, holding, set_trainable_state, trainable_state


@dataclass(frozen=True)
class Epoch:
    """A row of metrics.csv; losses in nats, accuracies in [0, 1]."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_acc: float
    val_select_loss: float
    val_select_acc: float


def metrics_rows(history: Iterable[Epoch]) -> list[tuple[object, ...]]:
    """The rows of metrics.csv: the fields' names (`val_select/acc`), then one row an epoch."""
    names = ("epoch", "step", "lr", "train/loss", "train/acc", "val_select/loss", "val_select/acc")
    return [names, *(astuple(epoch) for epoch in history)]


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
        batches: Epoch number and number of a batch to that batch and those after it, inputs and labels, on the model's
            device; with several processes each one's share of the batches, which may be empty.
        steps_an_epoch: How many batches it gives.
        weights: Weight of each class in the loss, (C,); None weighs all alike.
        score: VAL_SELECT loss and accuracy of the model as it stands.
        keeper: Keeps what is done in checkpoints.
    """

    batches: Callable[[int, int], Iterable[tuple[Tensor, Tensor]]]
    steps_an_epoch: int
    weights: Tensor | None
    score: Callable[[], tuple[float, float]]
    keeper: Keeper = field(default_factory=Keeper)


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
        One row an epoch. The best is the one with the highest val_select/acc, the lower loss breaking ties.

    Raises:
        TrainingError: If the loss is not finite, naming the epoch and the step.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    optimizer = torch.optim.AdamW(parameters, lr=training.optimizer.lr, weight_decay=training.optimizer.weight_decay)
    total = training.epochs * objective.steps_an_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / total)))
    scaler = torch.amp.GradScaler(device.type, enabled=autocast is torch.float16)
    ema = Ema(model, ema_decay) if ema_decay is not None else None
    parts: dict[str, Stateful] = {"optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    state, keeper = LoopState(model, parts, ema, Epoch), objective.keeper
    with keeper.keeping(state, world):
        while state.epoch < training.epochs and state.stale < training.early_stopping.patience:
            if not state.batch:
                state.begin_epoch(float(schedule.get_last_lr()[0]))
            for inputs, labels in keeper.batches(objective.batches, state):
                with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
                    logits = model(inputs)
                loss, count = _loss(logits.float(), labels, objective.weights, world)
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                world.sum_gradients(parameters)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                schedule.step()
                if ema:
                    ema.update(model)
                state.loss_sum += loss.detach() * count
                state.correct += (logits.detach().argmax(1) == labels).sum()
                state.count_batch(count)
                keeper.after_batch()
            row = _end_epoch(state, objective, world)
            on_epoch(row)
            keeper.after_epoch()
    set_trainable_state(model, state.best_state)
    return state.history


def _end_epoch(state: LoopState[Epoch], objective: Objective, world: World) -> Epoch:
    """Score an epoch whose batches are done, and keep its weights if it is the best."""
    epoch, step, best = state.epoch, state.step, state.best
    train_loss = float(world.summed(state.loss_sum)) / state.seen
    if not math.isfinite(train_loss):
        raise TrainingError(
            f"training loss is {train_loss} in epoch {epoch} (step {step}): lower training.optimizer.lr"
        )
    with holding(state.model, state.ema.values if state.ema else None):
        with objective.keeper.scoring():
            val_loss, val_acc = world.of_first(objective.score())
        if not math.isfinite(val_loss):
            raise TrainingError(f"val_select loss is {val_loss} in epoch {epoch}: lower training.optimizer.lr")
        train_acc = int(world.summed(state.correct)) / state.seen
        row = Epoch(epoch, step, state.lr, train_loss, train_acc, val_loss, val_acc)
        if best is None or (val_acc, -val_loss) > (best.val_select_acc, -best.val_select_loss):
            state.stale = 0 if best is None or val_acc > best.val_select_acc else state.stale + 1
            state.best, state.best_state = row, trainable_state(state.model)
        else:
            state.stale += 1
    state.end_epoch(row)
    return row


def _loss(logits: Tensor, labels: Tensor, weights: Tensor | None, world: World) -> tuple[Tensor, int]:
    """A process's part of the whole batch's weighted mean cross-entropy, and how many images the whole batch has."""
    if world.size == 1:
        return cross_entropy(logits, labels, weight=weights), len(labels)
    each = torch.ones_like(labels, dtype=torch.float32) if weights is None else weights[labels]
    weight, count = world.summed(torch.stack([each.sum(), torch.ones_like(each).sum()]))
    return cross_entropy(logits, labels, weight=weights, reduction="sum") / weight, int(count)


def best_epoch(history: list[Epoch]) -> Epoch:
    """The epoch whose weights `fit` keeps."""
    return max(history, key=lambda row: (row.val_select_acc, -row.val_select_loss))


def mean_loss_and_accuracy(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy (nats, unweighted) and accuracy of logits (n, C)."""
    return float(cross_entropy(logits.detach().double(), labels)), float((logits.argmax(1) == labels).double().mean())
