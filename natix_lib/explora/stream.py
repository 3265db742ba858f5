"""The images of a run: an endless stream of micro-batches that depends on the seed alone.

Position p of the stream is image p of a sequence of seeded permutations of all images. Micro-batch m takes the next
B positions for all processes together, and each process reads its own part, so the number of processes does not
change what is seen, and a run can start at any m.
"""

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from natix_lib.distributed.world import ALONE, World
from natix_lib.training.views import Images


class Pixels(Dataset[Tensor]):
    """Image i as uint8 (3, H, W), as it is stored."""

    def __init__(self, images: Images) -> None:
        """Read from `images`."""
        self.images = images

    def __len__(self) -> int:
        """Images."""
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        """Pixels of one image."""
        return torch.from_numpy(np.array(self.images.image(index))).permute(2, 0, 1)


class Stream(Sampler[list[int]]):
    """Image numbers of this process's micro-batches, from micro-batch `start` on."""

    def __init__(self, images: int, batch: int, seed: int, start: int, stop: int, world: World = ALONE) -> None:
        """`batch` is the size of one process's part of micro-batches `start` to `stop` - 1."""
        self.images, self.batch, self.seed = images, batch, seed
        self.start, self.stop, self.world = start, stop, world

    def __len__(self) -> int:
        """Micro-batches left."""
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        """Lists of image numbers."""
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for number in range(self.start, self.stop):
            rows = []
            for position in range(self.batch):
                place = (number * self.world.size + self.world.rank) * self.batch + position
                if place // self.images != epoch:
                    epoch = place // self.images
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.images)
                rows.append(int(order[place % self.images]))
            yield rows


def padded(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Images of several sizes in one uint8 tensor (n, 3, H, W), each at the top left, and their sizes (n, 2)."""
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = (int(side) for side in sizes.amax(dim=0))
    batch = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes


def _apart(worker: int) -> None:
    """Leave the process group: a SIGTERM to all of it asks for a checkpoint, which a loader's death would prevent."""
    os.setpgrp()


def stream_loader(images: Images, stream: Stream, workers: int) -> DataLoader[Tensor]:
    """Micro-batches of `stream` as `padded` gives them."""
    return DataLoader(
        Pixels(images),
        batch_sampler=stream,
        collate_fn=padded,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
        worker_init_fn=_apart,
    )
