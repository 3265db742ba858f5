"""mixup: images of a batch blended in pairs, and their labels with them.

Zhang et al., mixup (arXiv 1710.09412): one share lambda ~ Beta(alpha, alpha) for a batch, whose images are each blended
with another one of it. Who is blended with whom depends on the seed, the epoch and the step alone: the processes give
each other their pixels, so that a run is the same whatever their number. Partners from a process's own share would
need no exchange, and were rejected because then every number of processes is another training.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from natix_lib.distributed.world import World


@dataclass(frozen=True)
class Mixup:
    """How batches are blended.

    Attributes:
        alpha: Both parameters of the Beta distribution, above 0.
        classes: How many classes the labels are of, C.
        seed: The run's.
    """

    alpha: float
    classes: int
    seed: int

    def blended(self, pixels: Tensor, labels: Tensor, epoch: int, step: int, world: World) -> tuple[Tensor, Tensor]:
        """This process's share of a blended batch.

        Args:
            pixels: This process's share of the batch's pixels, (b, 3, S, S), which may be none.
            labels: Class numbers of the whole batch, (B,), on the pixels' device.
            epoch: Number of the epoch, from 0.
            step: Number of the batch within the epoch, from 0.
            world: The processes that divide the batch.

        Returns:
            Pixels (b, 3, S, S) and class probabilities (b, C) with at most two that are not 0.
        """
        generator = np.random.default_rng((self.seed, epoch, step))
        kept = float(generator.beta(self.alpha, self.alpha))
        partners = torch.from_numpy(generator.permutation(len(labels))).to(labels.device)
        every = world.gathered(pixels, len(labels))
        rows = world.share(len(labels))
        own = slice(rows.start, rows.stop)
        targets = one_hot(labels, self.classes).to(pixels.dtype)
        mixed = targets.mul(kept).add(targets[partners], alpha=1 - kept)
        return pixels.mul(kept).add(every[partners[own]], alpha=1 - kept), mixed[own]
