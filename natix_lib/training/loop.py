"""Where a training loop is: all that it changes, to the random numbers that dropout draws next.

What goes on from it equals what was never stopped, bit for bit where the device computes so. Buffers are not in it:
nothing that is trained here has one that changes with training. `keeper.py` saves it and takes it up again.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from natix_lib.errors import ContractError
from natix_lib.training.weights import Ema, set_trainable_state, trainable_parameters

Row = TypeVar("Row")


class Stateful(Protocol):
    """What gives and takes its state: an optimiser, a schedule, a gradient scaler."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> object: ...


class LoopState(Generic[Row]):
    """All that a training loop changes.

    Attributes:
        epoch: Number of the epoch that is at work, from 0; as many are done.
        batch: Batches of it that are done.
        step: Optimiser steps that are done.
        lr: Learning rate that the epoch began with.
        loss_sum: Sum of this epoch's losses times images, of this process.
        correct: Images of this epoch that this process has classified right.
        seen: Images of this epoch, over all processes.
        history: A row for each epoch that is done.
        best: The best one's row.
        best_state: The trainable parameters that it was scored with.
        stale: Epochs since the figure that is watched rose.
    """

    def __init__(
        self, model: nn.Module, parts: Mapping[str, Stateful], ema: Ema | None, make_row: Callable[..., Row]
    ) -> None:
        """Begin a loop.

        Args:
            model: What is trained, on its device.
            parts: What else has a state, by name.
            ema: The average of the trainable parameters.
            make_row: Makes a row of the history from its fields.
        """
        self.model, self.parts, self.ema, self.make_row = model, parts, ema, make_row
        self.device = next(iter(trainable_parameters(model).values())).device
        self.epoch = self.batch = self.step = self.stale = 0
        self.history: list[Row] = []
        self.best: Row | None = None
        self.best_state: dict[str, Tensor] = {}
        self.begin_epoch(0.0)

    def begin_epoch(self, lr: float) -> None:
        """Begin to count anew."""
        self.lr, self.batch, self.seen = lr, 0, 0
        self.loss_sum = torch.zeros((), device=self.device)
        self.correct = torch.zeros((), device=self.device, dtype=torch.long)

    def count_batch(self, images: int) -> None:
        """Count a batch of so many images, over all processes, that is done."""
        self.batch, self.step, self.seen = self.batch + 1, self.step + 1, self.seen + images

    def end_epoch(self, row: Row) -> None:
        """Note an epoch that is scored."""
        self.history.append(row)
        self.epoch, self.batch = self.epoch + 1, 0

    def own(self) -> dict[str, Tensor]:
        """What each process has of its own, copied to the CPU."""
        own = {"random": torch.get_rng_state(), "loss_sum": self.loss_sum, "correct": self.correct}
        if self.device.type == "cuda":
            own["random_cuda"] = torch.cuda.get_rng_state(self.device)
        return {name: value.cpu().clone() for name, value in own.items()}

    def document(self, own: dict[str, Tensor]) -> dict[str, Any]:
        """The state as containers, tensors, numbers and texts; `own` has a row for each process."""
        return {
            "own": own,
            "trainable": trainable_parameters(self.model),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "ema": self.ema and {"steps": self.ema.steps, "values": self.ema.values},
            "numbers": {name: getattr(self, name) for name in ("epoch", "batch", "step", "lr", "seen", "stale")},
            "history": [asdict(row) for row in self.history],  # type: ignore[call-overload]
            "best": self.best and asdict(self.best),  # type: ignore[call-overload]
            "best_state": self.best_state,
        }

    def restore(self, document: dict[str, Any], rank: int = 0) -> None:
        """Take up the state of a document, as the process of this rank.

        Raises:
            ContractError: If it is not of exactly these trainable parameters.
        """
        mine, stored = (
            {name: tuple(value.shape) for name, value in state.items()}
            for state in (trainable_parameters(self.model), document["trainable"])
        )
        if mine != stored:
            wrong = sorted(name for name in mine | stored if mine.get(name) != stored.get(name))
            raise ContractError(f"the checkpoint is not of these trainable parameters: {', '.join(wrong[:3])}")
        set_trainable_state(self.model, document["trainable"])
        for name, part in self.parts.items():
            part.load_state_dict(document["parts"][name])
        if self.ema:
            self.ema.steps = document["ema"]["steps"]
            self.ema.values = {name: value.to(self.device) for name, value in document["ema"]["values"].items()}
        for name, value in document["numbers"].items():
            setattr(self, name, value)
        self.history = [self.make_row(**row) for row in document["history"]]
        self.best = self.make_row(**document["best"]) if document["best"] else None
        self.best_state = {name: value.to(self.device) for name, value in document["best_state"].items()}
        own = {name: rows[rank].clone() for name, rows in document["own"].items()}
        self.loss_sum, self.correct = own["loss_sum"].to(self.device), own["correct"].to(self.device)
        self.restore_random(own)

    def restore_random(self, own: dict[str, Tensor]) -> None:
        """Let the next random numbers be those after which `own` was taken."""
        torch.set_rng_state(own["random"])
        if "random_cuda" in own:
            torch.cuda.set_rng_state(own["random_cuda"], self.device)
