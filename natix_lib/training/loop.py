"""Where a training loop is, and how it goes on there after it was stopped or killed.

`LoopState` holds all that a loop changes, to the random numbers that dropout draws next, so that what goes on from it
equals what was never stopped, bit for bit where the device computes so. `Keeper` saves it and takes it up again:
after an epoch, after so many minutes within one, and when the process is told to stop. A told process ends after its
batch; while it scores an epoch it ends at once, and scores again when it goes on. Of several processes the first one
writes and all read; which batch is the last one they agree on, so that none waits for one that has left. They end a
score that they have begun, because they need one another for it.

Whether batches can begin in the middle of an epoch without those before is their maker's affair. Buffers are not in a
state: nothing that is trained here has one that changes with training.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from natix_lib import storage
from natix_lib.distributed.world import ALONE, World
from natix_lib.errors import ContractError
from natix_lib.progress import WARNING, Lines
from natix_lib.storage.checkpoints import Checkpoints
from natix_lib.training.checkpoint import packed, read_tensors, tensors_bytes, unpacked
from natix_lib.training.weights import Ema, set_trainable_state, trainable_parameters

ARTIFACT = "training_checkpoint"
LEAST_SECONDS = 1.0  # between the checkpoints of two epochs: those of a head take milliseconds

Row = TypeVar("Row")
Batch = TypeVar("Batch")


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
        own = {"random": torch.get_rng_state(), "loss_sum": self.loss_sum.cpu(), "correct": self.correct.cpu()}
        if self.device.type == "cuda":
            own["random_cuda"] = torch.cuda.get_rng_state(self.device)
        return {name: value.clone() for name, value in own.items()}

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


class Keeper:
    """Keeps a loop's state in checkpoints; without checkpoints it does nothing."""

    def __init__(self, checkpoints: Checkpoints | None = None, seconds: float = 600.0, world: World = ALONE) -> None:
        """Keep a loop.

        Args:
            checkpoints: Where; None keeps nothing.
            seconds: Longest time between two checkpoints within an epoch.
            world: The processes that read the checkpoints, of which the first one writes.
        """
        self._checkpoints, self._seconds, self._world = checkpoints, seconds, world
        self._told, self._at_once, self._resumed = 0, False, False
        self._saved, self._number = time.monotonic(), -1  # when the last one was saved, and its number

    @contextmanager
    def keeping(self, state: LoopState[Any], together: World) -> Iterator[None]:
        """Take up where the newest whole checkpoint is, run the loop, and leave a checkpoint of where it ended.

        Args:
            state: The state of a loop that has not begun.
            together: The processes that run the loop in step; ALONE where each runs one of its own.

        Raises:
            SystemExit: With 128 + signal, when the process was told to stop; the checkpoint is written.
            StorageError: If the place of the checkpoints refuses them.
        """
        if self._checkpoints is None:
            yield
            return
        self._state, self._together = state, together
        self._take_up(self._checkpoints)
        self._mark()
        handled = threading.current_thread() is threading.main_thread()
        before = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGINT)} if handled else {}
        try:
            yield
            if state.step + state.epoch != self._number:
                self._mark()
                self._save(self._checkpoints.save)
            self._checkpoints.settle()
            self._checkpoints.check()
            if self._told:  # in the last moments of the loop: what follows would not hear of it
                raise SystemExit(128 + self._told)
        except SystemExit:
            if self._told:
                self._save(self._checkpoints.save_now)
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def batches(self, of_epoch: Callable[[int, int], Iterable[Batch]], state: LoopState[Any]) -> Iterator[Batch]:
        """The batches of the state's epoch that are not done, of `of_epoch(epoch, first batch)`."""
        drawn = state.own() if self._resumed and state.batch else None  # to make a loader draws, as it has before
        self._resumed = False
        for batch in of_epoch(state.epoch, state.batch):
            if drawn:
                state.restore_random(drawn)
                drawn = None
            yield batch
        if drawn:
            state.restore_random(drawn)

    def after_batch(self) -> None:
        """Save when it is time, and end when told to."""
        self._keep(self._seconds)

    def after_epoch(self) -> None:
        """Save, and end when told to."""
        self._keep(LEAST_SECONDS)

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """A block that may be ended at any place: it changes nothing that a checkpoint holds."""
        if self._checkpoints is None or self._together.size > 1:
            yield
            return
        self._mark()
        try:
            self._at_once = True
            if self._told:
                raise SystemExit(128 + self._told)
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: object) -> None:
        first, self._told = not self._told, number
        if first and self._at_once:
            raise SystemExit(128 + number)

    def _keep(self, seconds: float) -> None:
        if self._checkpoints is None:
            return
        self._checkpoints.check()
        due = self._world.first and time.monotonic() - self._saved >= seconds and self._checkpoints.idle
        if self._together.size > 1:
            flags = self._together.highest(torch.tensor([self._told, int(due)]))
            self._told, due = int(flags[0]), bool(flags[1])
        if self._told or due:
            self._mark()
        if self._told:
            raise SystemExit(128 + self._told)
        if due:
            self._save(self._checkpoints.save)

    def _mark(self) -> None:
        """Gather what each process has of its own now; all processes come here at the same place of the loop."""
        own, size = self._state.own(), self._together.size
        self._own = {name: self._together.gathered(value[None], size) for name, value in own.items()}

    def _save(self, save: Callable[[int, bytes], None]) -> None:
        """Give a checkpoint of the loop, in which each process stood at the last mark, to `save`."""
        if not self._world.first or self._checkpoints is None:
            return
        tensors: dict[str, Tensor] = {}
        state = packed(self._state.document(self._own), tensors)
        header = {"run": self._checkpoints.run, "state": json.dumps(state)}
        self._number = self._state.step + self._state.epoch
        save(self._number, tensors_bytes(ARTIFACT, tensors, header))
        self._saved = time.monotonic()

    def _take_up(self, checkpoints: Checkpoints) -> None:
        number, document = -1, None
        if self._world.first:
            for number in checkpoints.numbers():
                try:
                    document = self._read(checkpoints, number)
                    break
                except ContractError as error:
                    Lines().say(f"{WARNING}{error}: removed")
                    storage.remove_file(checkpoints.place(number))  # else it would pass for the newest
            number = number if document else -1
        number = int(self._world.of_first([number])[0])
        if number >= 0:
            rank = self._together.rank
            self._state.restore(document or self._read(checkpoints, number), rank)
            self._resumed, self._number = True, number
        self._world.highest(torch.zeros(1))  # the first one drops none that another one still reads
        if self._world.first:
            at = f"going on from epoch {self._state.epoch}, batch {self._state.batch}, {checkpoints.place(number)}"
            Lines().say(f"checkpoints in {checkpoints.folder}: {at if number >= 0 else 'none yet'}")

    def _read(self, checkpoints: Checkpoints, number: int) -> dict[str, Any]:
        place = checkpoints.place(number)
        tensors, header = read_tensors(ARTIFACT, place)
        if header.get("run") != checkpoints.run:
            raise ContractError(f"checkpoint {place} is of another run")
        document: dict[str, Any] = unpacked(json.loads(header["state"]), tensors)
        return document
