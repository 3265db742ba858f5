"""AdamW for models that are trained at once, each tensor holding one parameter of all.

torch's optimisers have one rate a tensor. Loshchilov and Hutter, Decoupled weight decay regularization,
arXiv 1711.05101; a test holds it to torch's own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch's defaults


class AdamW:
    """On tensors (E, ...), with a rate and a decay for each of E."""

    def __init__(
        self, values: dict[str, Tensor], lr: Sequence[float], weight_decay: Sequence[float], decayed: str
    ) -> None:
        """Begin.

        Args:
            values: Leaf tensors by name, changed in place by `step`.
            lr: Highest rate of each of the E.
            weight_decay: Decay of each of the E.
            decayed: `all`, or `matrices`: then what has one dimension beside E does not decay.
        """
        self.values, self.steps = values, 0
        device = next(iter(values.values())).device
        self.lr = torch.tensor(lr, device=device)
        self.decay = torch.tensor(weight_decay, device=device)
        self.decays = {name: decayed == "all" or value.ndim > 2 for name, value in values.items()}
        self.mean = {name: torch.zeros_like(value) for name, value in values.items()}
        self.square = {name: torch.zeros_like(value) for name, value in values.items()}

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Take a step at this share of each rate, by the gradients that the tensors hold; forget these."""
        self.steps += 1
        first, second = BETAS
        scale = (1 - second**self.steps) ** 0.5
        for name, value in self.values.items():
            assert value.grad is not None
            shape = (-1, *[1] * (value.ndim - 1))
            lr = (share * self.lr).view(shape)
            if self.decays[name]:
                value.mul_(1 - lr * self.decay.view(shape))
            self.mean[name].lerp_(value.grad, 1 - first)
            self.square[name].mul_(second).addcmul_(value.grad, value.grad, value=1 - second)
            value.sub_(lr / (1 - first**self.steps) * self.mean[name] / (self.square[name].sqrt() / scale + EPSILON))
            value.grad = None
