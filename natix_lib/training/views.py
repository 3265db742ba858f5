"""Views of images for training: the evaluation views, and augmented ones that depend on nothing but the seed.

View `k` of an image is drawn from a generator seeded with (seed, k, image id), so it is the same whatever the batch
size, the number of workers, or the order of the images. Augmentation is what holds for a street: crops, mirroring,
light; no vertical flip and no rotation. Written with Pillow in the loader's processes: torchvision is not needed.
"""

import signal
import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from natix_lib.config import Dataloader
from natix_lib.transform import Transform, resized, upright_rgb

CROP_SCALE = (0.4, 1.0)  # share of the area; less loses the cone that gives an image its label
CROP_RATIO = (3 / 4, 4 / 3)
JITTER = 0.3  # brightness, contrast and saturation within 1 +- JITTER


class Images(Protocol):
    """What views are made of: a split role opened by `natix_lib.data.sets.open_set`."""

    ids: list[str]

    def __len__(self) -> int: ...
    def image(self, index: int) -> Image.Image:
        """Image `index` as RGB."""
        ...


def augmented(image: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """A random resized crop with mirroring and light, `size` pixels square."""
    image = upright_rgb(image)
    width, height = image.size
    area = width * height * generator.uniform(*CROP_SCALE)
    ratio = float(np.exp(generator.uniform(*np.log(CROP_RATIO))))
    crop_width = min(width, max(1, round(float(np.sqrt(area * ratio)))))
    crop_height = min(height, max(1, round(float(np.sqrt(area / ratio)))))
    left = int(generator.integers(0, width - crop_width + 1))
    top = int(generator.integers(0, height - crop_height + 1))
    box = (left, top, left + crop_width, top + crop_height)
    image = resized(image, (size, size), box)
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(float(generator.uniform(1 - JITTER, 1 + JITTER)))
    return image


class Views(Dataset[Tensor]):
    """Image i as float32 (views, 3, S, S): the evaluation views, or the numbered augmented ones."""

    def __init__(self, images: Images, transform: Transform, seed: int, numbers: Sequence[int] = ()) -> None:
        """Evaluation views when `numbers` is empty; else the augmented views of these numbers."""
        self.images = images
        self.transform = transform
        self.seed = seed
        self.numbers = tuple(numbers)

    @property
    def count(self) -> int:
        """Views of an image."""
        return len(self.numbers) or self.transform.view_count

    def __len__(self) -> int:
        """Images."""
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        """All views of one image."""
        image = self.images.image(index)
        if not self.numbers:
            return torch.from_numpy(self.transform(image))
        name = zlib.crc32(self.images.ids[index].encode())
        squares = (
            augmented(image, self.transform.image_size, np.random.default_rng((self.seed, number, name)))
            for number in self.numbers
        )
        return torch.from_numpy(np.stack([self.transform.normalise(square) for square in squares]))


def _deaf(worker: int) -> None:
    """Take no notice of being told to stop: a checkpoint is written then, which a loader's death would prevent."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def batches(views: Views, settings: Dataloader, order: Sequence[int] | None = None) -> Iterator[Tensor]:
    """Batches of views, (n, views, 3, S, S), in the given order of images or in theirs."""
    every = torch.arange(len(views)) if order is None else torch.tensor(order, dtype=torch.long)
    chosen = [rows.tolist() for rows in torch.split(every, settings.batch_size) if len(rows)]
    return chosen_batches(views, settings, chosen)


def chosen_batches(views: Views, settings: Dataloader, chosen: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    """The batches of views of the chosen images, (n, views, 3, S, S); a choice of none gives none."""
    loader = iter(
        DataLoader(
            views,
            batch_sampler=[list(rows) for rows in chosen if len(rows)],
            num_workers=settings.num_workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_deaf,
        )
    )
    side = views.transform.image_size
    for rows in chosen:
        yield next(loader) if len(rows) else torch.empty(0, views.count, 3, side, side)
