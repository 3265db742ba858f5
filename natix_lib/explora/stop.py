"""Being told to stop, by several processes: all end after the same micro-batch, so that none waits for one that left.

Lightning's own answer to SIGTERM exchanges from within the handler, wherever the process happens to be: two that get
the signal at different places of a step then wait for each other until they are killed. Here the handler notes, and
after each micro-batch the processes agree; a signal to one node ends the others as well, in seconds.
"""

import signal
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from natix_lib.distributed.world import World


class Stop(lightning.Callback):
    """Raises SIGTERMException on every process when one of them has got SIGTERM."""

    def __init__(self, world: World) -> None:
        """End `world`, of several processes, each of which trains in its main thread."""
        self._world = world
        self._told = False

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Take the signal in place of Lightning, which has set its handler by now and takes all back at the end."""
        signal.signal(signal.SIGTERM, self._note)

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Agree with the others."""
        if self._world.highest(torch.tensor(float(self._told), device=module.device)):
            raise SIGTERMException

    def _note(self, number: int, frame: object) -> None:
        self._told = True
