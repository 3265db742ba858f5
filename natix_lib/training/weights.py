"""The trainable parameters of a module by name: copied, put back, held for a while, averaged."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of the trainable parameters of a module, by name.

    The decay is `warmed` up, so that a short run is not an average of its random start.
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
        decay = warmed(self.decay, self.steps)
        trained = trainable_parameters(module)  # one launch for all on a GPU, tensor by tensor on a CPU
        torch._foreach_lerp_([self.values[name] for name in trained], list(trained.values()), 1 - decay)


def warmed(decay: float, steps: int) -> float:
    """The share of an average that stays at step `steps`, from 1: min(decay, (1 + t) / (10 + t))."""
    return min(decay, (1 + steps) / (10 + steps))


def trainable_parameters(module: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters themselves, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def trainable_state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the trainable parameters, by name."""
    return {name: p.detach().clone() for name, p in trainable_parameters(module).items()}


@torch.no_grad()
def set_trainable_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Put `state` into exactly the trainable parameters."""
    parameters = trainable_parameters(module)
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
