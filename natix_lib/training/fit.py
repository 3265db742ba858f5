"""One training loop for a head on cached features and for a whole network on pixels.

The loop sees batches and a model; whether a batch holds features or pixels is the caller's affair. AdamW
as `training/tuning.py` makes it; an EMA of the trainable parameters by name; the weights of the best epoch are kept,
and they are the weights that were scored: with the EMA on, the EMA's. Lightning was rejected here: a step of head
training takes a fraction of a millisecond, less than a Lightning step's overhead, and one plain loop serves both cases.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, field

import torch
from torch import Tensor, nn

from natix_lib.config import Training
from natix_lib.distributed.gradients import summing
from natix_lib.distributed.world import ALONE, World
from natix_lib.errors import TrainingError
from natix_lib.training.checks import lower_lr, lr_overflow_named, require_finite_weights
from natix_lib.training.keeper import Keeper
from natix_lib.training.loop import LoopState, Stateful
from natix_lib.training.loss import BatchLoss, likeliest
from natix_lib.training.tuning import adamw, rate
from natix_lib.training.watch import Figures, compared
from natix_lib.training.weights import Ema, holding, set_trainable_state, trainable_state

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


def class_weights(labels: Tensor, classes: int, rule: str) -> Tensor | None:
    """How much more a class counts: n / (C n_c), scikit-learn's rule, float32 (C,); None by the rule `none`.

    So it is in the loss by the rule `balanced`, and on average by `sampled`, which draws all classes equally often.
    """
    if rule == "none":
        return None
    counts = torch.bincount(labels, minlength=classes).clamp_min(1)
    return len(labels) / (classes * counts.float())


@dataclass(frozen=True)
class Objective:
    """What a model is fitted to, and what its epochs are compared by.

    Attributes:
        batches: Epoch number and number of a batch to that batch and those after it, inputs and targets, on the model's
            device; with several processes each one's share of the batches, which may be empty. Targets are class
            numbers (b,) or probabilities (b, C).
        steps_an_epoch: How many batches it gives.
        weights: Weight of each class in the loss, (C,); None weighs all alike.
        score: The figures of VAL_SELECT of the model as it stands.
        layer_decay: Learning rate of a block as a share of the next one's.
        at_once: Images that a device computes at once, gradients are accumulated over a batch; 0 takes all.
        keeper: Keeps what is done in checkpoints.
    """

    batches: Callable[[int, int], Iterable[tuple[Tensor, Tensor]]]
    steps_an_epoch: int
    weights: Tensor | None
    score: Callable[[], Figures]
    layer_decay: float = 1.0
    at_once: int = 0
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
        One row an epoch. The best is the one with the best `early_stopping.monitor`, the lower loss breaking ties.

    Raises:
        TrainingError: If a loss or weight is not finite, naming the epoch, the step and the learning rate.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    optimizer = adamw(model, training.optimizer, objective.layer_decay)
    total = training.epochs * objective.steps_an_epoch
    warmup = training.optimizer.warmup
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, total, warmup))
    loss_of = BatchLoss(objective.weights, training.label_smoothing, objective.at_once, world)
    scaler = torch.amp.GradScaler(device.type, enabled=autocast is torch.float16)
    ema = Ema(model, ema_decay) if ema_decay is not None else None
    parts: dict[str, Stateful] = {"optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    state, keeper = LoopState(model, parts, ema, Epoch), objective.keeper
    cure = lower_lr(training.optimizer.lr)
    with keeper.keeping(state, world), summing(parameters, world) as sums:
        while state.epoch < training.epochs and state.stale < training.early_stopping.patience:
            if not state.batch:
                state.begin_epoch(float(max(schedule.get_last_lr())))
            losses: list[Tensor] = []
            for inputs, targets in keeper.batches(objective.batches, state):
                weight, count = loss_of.whole(targets)
                batch_loss = torch.zeros((), device=device)
                parts_of_batch = list(loss_of.parts(inputs, targets))
                for number, (part, part_targets) in enumerate(parts_of_batch, 1):
                    with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
                        logits = model(part)
                    loss = loss_of.of_part(logits.float(), part_targets, weight)
                    if number == len(parts_of_batch):
                        sums.last_part()
                    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                    batch_loss += loss.detach()
                    state.correct += (logits.detach().argmax(1) == likeliest(part_targets)).sum()
                sums.finish()
                if training.optimizer.clip:
                    scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(parameters, training.optimizer.clip)
                with lr_overflow_named(f"in epoch {state.epoch} (step {state.step + 1}): {cure}"):
                    scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                schedule.step()
                if ema:
                    ema.update(model)
                losses.append(batch_loss)
                state.loss_sum += batch_loss * count
                state.count_batch(count)
                if len(losses) == CHECKED_STEPS:
                    _require_finite(losses, state.epoch, state.step, cure, world)
                    losses.clear()
                keeper.after_batch()
            _require_finite(losses, state.epoch, state.step, cure, world)
            row = _end_epoch(state, objective, training, world)
            on_epoch(row)
            keeper.after_epoch()
    set_trainable_state(model, state.best_state)
    return state.history


def _end_epoch(state: LoopState[Epoch], objective: Objective, training: Training, world: World) -> Epoch:
    """Score an epoch whose batches are done, and keep its weights if it is the best."""
    epoch, step = state.epoch, state.step
    cure = lower_lr(training.optimizer.lr)
    train_loss = float(world.summed(state.loss_sum)) / state.seen
    if not math.isfinite(train_loss):
        raise TrainingError(f"training loss is {train_loss} in epoch {epoch} (step {step}): {cure}")
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    require_finite_weights(parameters, f"after epoch {epoch} (step {step}): {cure}")
    with holding(state.model, state.ema.values if state.ema else None):
        with objective.keeper.scoring():
            select = Figures(*world.of_first(objective.score()))
        if not math.isfinite(select.loss):
            raise TrainingError(f"val_select loss is {select.loss} in epoch {epoch} (step {step}): {cure}")
        train_acc = int(world.summed(state.correct)) / state.seen
        row = Epoch(epoch, step, state.lr, train_loss, train_acc, *select)
        better, risen = compared(row, state.best, training.early_stopping)
        state.stale = 0 if risen else state.stale + 1
        if better:
            state.best, state.best_state = row, trainable_state(state.model)
    state.end_epoch(row)
    return row


def _require_finite(losses: Sequence[Tensor], epoch: int, step: int, cure: str, world: World) -> None:
    """Refuse the losses of the last steps, up to number `step` from 1, if one is NaN or infinite in any process."""
    values = world.summed(torch.stack([*losses])).tolist() if losses else []
    first = next((row for row, value in enumerate(values) if not math.isfinite(value)), None)
    if first is not None:
        number = step - len(values) + first + 1
        raise TrainingError(f"training loss is {values[first]} in epoch {epoch} (step {number}): {cure}")
