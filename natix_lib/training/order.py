"""In which order an epoch sees the images: a function of the seed and the epoch alone.

Balanced, classes have equally many places in an epoch, to within one, and the images of a class are drawn as evenly as
they can be: none a second time before all have been seen. Draws with replacement, as torch's WeightedRandomSampler
has them, were rejected: of a rare class they show some images thrice and others never.
"""

import torch
from torch import Tensor

from natix_lib.seeds import numbered_seed


def shuffled(labels: Tensor, seed: int, epoch: int) -> Tensor:
    """Row numbers of the labels, every row once, (n,), on the CPU."""
    return torch.randperm(len(labels), generator=_generator(seed, epoch))


def balanced(labels: Tensor, seed: int, epoch: int) -> Tensor:
    """As many rows as there are labels, equally many of each class that has any.

    Args:
        labels: Class number of each row, (n,).
        seed: The run's.
        epoch: Number of the epoch, from 0; over the epochs each class gets the places that do not divide evenly.

    Returns:
        Row numbers (n,), on the CPU.
    """
    labels = labels.cpu()
    generator = _generator(seed, epoch)
    classes = torch.nonzero(torch.bincount(labels))[:, 0]
    least, over = divmod(len(labels), len(classes))
    drawn = []
    for number, one in enumerate(classes):
        rows = torch.nonzero(labels == one)[:, 0]
        places = least + ((number + epoch) % len(classes) < over)
        rounds = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(-(-places // len(rows)))]
        drawn.append(torch.cat(rounds)[:places])
    every = torch.cat(drawn)
    return every[torch.randperm(len(every), generator=generator)]


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(numbered_seed(seed, epoch))
