"""The training loss of a batch that may be divided, over processes and into parts that are computed one by one.

A part's loss is its sum over the whole batch's weight, so gradients of parts add up to the batch's gradient however it
is divided; a mean of the parts' means would not be it, where parts differ in size or in the weights of their classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from natix_lib.distributed.world import ALONE, World


@dataclass(frozen=True)
class BatchLoss:
    """Weighted mean cross-entropy, in nats.

    Attributes:
        weights: Weight of each class, (C,); None weighs all alike.
        smoothing: Share of each label that is spread over all classes, in [0, 1).
        at_once: Images of a part, at most; 0 takes a process's share of the batch as one part.
        world: The processes that divide each batch.
    """

    weights: Tensor | None = None
    smoothing: float = 0.0
    at_once: int = 0
    world: World = ALONE

    def parts(self, inputs: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The parts of a process's share, at least one: a share of no images is a part of none."""
        size = self.at_once or max(len(targets), 1)
        return zip(torch.split(inputs, size), torch.split(targets, size), strict=True)

    def whole(self, targets: Tensor) -> tuple[Tensor | None, int]:
        """Weight of the whole batch and its images, from this process's share of the targets.

        None as the weight says that the batch is one part with class numbers, of which torch gives the mean.
        """
        divided = self.world.size > 1 or 0 < self.at_once < len(targets)
        if not divided and targets.ndim == 1:
            return None, len(targets)
        each = torch.ones(len(targets), device=targets.device)
        if self.weights is None:
            weighed = each
        else:
            weighed = self.weights[targets] if targets.ndim == 1 else targets @ self.weights
        weight, count = self.world.summed(torch.stack([weighed.sum(), each.sum()]))
        return weight, int(count)

    def of_part(self, logits: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
        """The part's share of the batch's loss.

        Args:
            logits: Logits of the part, float32 (p, C), of no images too.
            targets: Class numbers (p,), or probabilities (p, C) where labels are blended.
            weight: Weight of the whole batch, of `whole`.

        Returns:
            A scalar; those of all parts, of all processes, sum to the batch's loss.
        """
        if weight is None:
            return cross_entropy(logits, targets, self.weights, label_smoothing=self.smoothing)
        total = cross_entropy(logits, targets, self.weights, reduction="sum", label_smoothing=self.smoothing)
        return total / weight


def likeliest(targets: Tensor) -> Tensor:
    """The class number of each target, the one with the larger share where two labels are blended, (n,)."""
    return targets if targets.ndim == 1 else targets.argmax(1)
