"""How a training loop goes on after it was stopped or killed.

The loop's state is saved after an epoch, after so many minutes within one, and when the process is told to stop. A told
process ends after its batch; while it scores an epoch it ends at once, and scores again when it goes on. Of several
processes the first one writes and all read; which batch is the last one they agree on, so that none waits for one that
has left. They end a score that they have begun, because they need one another for it.

Whether batches can begin in the middle of an epoch without those before is their maker's affair.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from natix_lib import storage
from natix_lib.distributed.world import ALONE, World
from natix_lib.errors import ContractError
from natix_lib.progress import NOTE, WARNING, Lines
from natix_lib.storage.checkpoints import Checkpoints
from natix_lib.training.checkpoint import packed, read_tensors, tensors_bytes, unpacked
from natix_lib.training.loop import LoopState

ARTIFACT = "training_checkpoint"
LEAST_SECONDS = 1.0  # between the checkpoints of two epochs: those of a head take milliseconds

Batch = TypeVar("Batch")


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
        self._number = self._state.step + self._state.epoch  # of all processes: they end alike
        if not self._world.first or self._checkpoints is None:
            return
        tensors: dict[str, Tensor] = {}
        state = packed(self._state.document(self._own), tensors)
        header = {"run": self._checkpoints.run, "state": json.dumps(state)}
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
            self._state.restore(document or self._read(checkpoints, number), self._together.rank)
            self._resumed, self._number = True, number
        self._world.highest(torch.zeros(1))  # the first one drops none that another one still reads
        if self._world.first:
            at = f"epoch {self._state.epoch}, batch {self._state.batch}, {checkpoints.place(number)}"
            Lines().say(f"{NOTE}going on from {at}" if number >= 0 else f"no checkpoint yet in {checkpoints.folder}")

    def _read(self, checkpoints: Checkpoints, number: int) -> dict[str, Any]:
        place = checkpoints.place(number)
        tensors, header = read_tensors(ARTIFACT, place)
        if header.get("run") != checkpoints.run:
            raise ContractError(f"checkpoint {place} is of another run")
        document: dict[str, Any] = unpacked(json.loads(header["state"]), tensors)
        return document
