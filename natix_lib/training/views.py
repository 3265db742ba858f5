"""Views of images for training: the evaluation views, and augmented ones that depend on nothing but the seed.

View `k` of an image is drawn from a generator seeded with (seed, k, image id), so it is the same whatever the batch
size, the number of workers, or the order of the images. A loader's processes decode images and cut squares of uint8;
normalising them, and what a profile (`profiles.py`) does to augmented ones, is done on the device for a batch
(`augment.py`): a quarter of the bytes go to it, and processes spend no time on floating point.

Images are decoded at their whole size. Stored ones are hardly larger than what a model of 224 pixels takes, and
evaluation must see what predict and serve see, so a smaller scale of libjpeg's was left out. So was nvJPEG: its pixels
are not Pillow's.
"""

import math
import signal
import zlib
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.util import Finalize
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from natix_lib.config import Dataloader
from natix_lib.training.augment import finished
from natix_lib.training.profiles import STREET, UNCHANGED, Cuts, Profile
from natix_lib.transform import Transform

CPU = torch.device("cpu")
QUEUES_OPEN = 11  # Finalize's priority: Python closes queues at 10, then ends its children with a SIGTERM, and waits
Row = int | tuple[int, int]  # an image, or an image and the number of its one view


class Images(Protocol):
    """What views are made of: a split role opened by `natix_lib.data.sets.open_set`."""

    ids: list[str]

    def __len__(self) -> int: ...
    def image(self, index: int) -> Image.Image:
        """Image `index` as RGB."""
        ...


class Views(Dataset[tuple[Tensor, Tensor]]):
    """Images as squares and what is to be done to them: the evaluation views, or the numbered augmented ones."""

    def __init__(
        self,
        images: Images,
        transform: Transform,
        seed: int,
        numbers: Sequence[int] = (),
        profile: Profile = STREET,
    ) -> None:
        """Evaluation views when `numbers` is empty; else the augmented views of these numbers, by a profile."""
        self.images = images
        self.transform = transform
        self.seed = seed
        self.numbers = tuple(numbers)
        self.profile = profile

    @property
    def count(self) -> int:
        """Views of an image."""
        return len(self.numbers) or self.transform.view_count

    def __len__(self) -> int:
        """Images."""
        return len(self.images)

    def __getitem__(self, row: Row) -> tuple[Tensor, Tensor]:
        """What `__getitems__` gives of one row, without its first axis."""
        pixels, numbers = self.__getitems__([row])
        return pixels[0], numbers[0]

    def __getitems__(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """A batch before `finish`: uint8 (n, views, S, S, 4), and numbers, float32 (n, views, 6).

        torch's loader asks for a batch by this name. Each square is put where its batch lies, two copies less than
        stacking an image's views and then its batch.
        """
        side = self.transform.image_size
        pixels = _allocated((len(rows), self.count, side, side, 4))
        numbers = torch.tensor(UNCHANGED).repeat(len(rows), self.count, 1)
        for row, squares, drawn in zip(rows, pixels.numpy(), numbers.numpy(), strict=True):
            self._put(row, squares, drawn)
        return pixels, numbers

    def _put(self, row: Row, squares: NDArray[np.uint8], drawn: NDArray[np.float32]) -> None:
        index, numbers = (row, self.numbers) if isinstance(row, int) else (row[0], row[1:])
        image = self.images.image(index)
        if not numbers:
            self.transform.pixels(image, squares)
            return
        name = zlib.crc32(self.images.ids[index].encode())
        cuts = Cuts(image, self.transform)
        for view, number in enumerate(numbers):
            generator = np.random.default_rng((self.seed, number, name))
            squares[view], drawn[view] = cuts.cut(self.profile, generator)

    def finish(self, batch: tuple[Tensor, Tensor], device: torch.device) -> Tensor:
        """What a backbone takes of a batch of items, float32 (n, views, 3, S, S) on `device`."""
        pixels, numbers = batch
        plain = not self.numbers or self.profile.area is None
        done = finished(pixels.flatten(0, 1), None if plain else numbers.flatten(0, 1), self.transform, device)
        return done.reshape(*pixels.shape[:2], *done.shape[1:])


def _allocated(shape: tuple[int, ...]) -> Tensor:
    """A tensor of bytes, in a loader's process in memory that it shares: what is not would be copied there."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage: Any = torch.UntypedStorage
    shared = storage._new_shared(math.prod(shape))  # as torch's own `default_collate` has it
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)


def _unchanged(batch: Any) -> Any:
    return batch


def _deaf(worker: int) -> None:
    """Take no notice of being told to stop: a checkpoint is written then, which a loader's death would prevent."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def batches(
    views: Views, settings: Dataloader, order: Sequence[int] | None = None, device: torch.device = CPU
) -> Iterator[Tensor]:
    """Batches of views, (n, views, 3, S, S) on a device, in the given order of images or in theirs."""
    every = torch.arange(len(views)) if order is None else torch.tensor(order, dtype=torch.long)
    chosen = [rows.tolist() for rows in torch.split(every, settings.batch_size) if len(rows)]
    made = iter(loader(views, settings, chosen))
    dismiss = Finalize(None, _dismiss, (made,), exitpriority=QUEUES_OPEN)  # an error may end Python while it is here
    try:
        for batch in made:
            yield views.finish(batch, device)
    finally:
        dismiss()


class Epochs:
    """One augmented view of each chosen image, pass after pass, cut by processes that stay."""

    def __init__(self, views: Views, settings: Dataloader, device: torch.device) -> None:
        """`device` is where batches are finished."""
        self.views, self.device = views, device
        self._rows: list[list[Row]] = []  # of the pass that begins next; the loader has this list
        self._loader = loader(views, settings, self._rows, stay=True)
        of_all = self._loader  # without this object, which may end before
        Finalize(self, lambda: _dismiss(of_all._iterator), exitpriority=QUEUES_OPEN)

    def batches(self, chosen: Sequence[Sequence[int]], number: int) -> Iterator[Tensor]:
        """View `number` of the chosen images, (n, 1, 3, S, S), batch by batch; a choice of none gives none."""
        self._rows[:] = [[(row, number) for row in rows] for rows in chosen if len(rows)]
        torch.empty((), dtype=torch.int64).random_()  # as a loader of one pass does: dropout stays what it was
        made = iter(self._loader)
        side = self.views.transform.image_size
        for rows in chosen:
            if len(rows):
                yield self.views.finish(next(made), self.device)
            else:
                yield torch.empty(0, 1, 3, side, side, device=self.device)


def _dismiss(pass_of: object) -> None:
    """End the processes of a loader's pass, which do not end when they are told to: Python would wait for ever."""
    if isinstance(pass_of, _MultiProcessingDataLoaderIter):
        pass_of._shutdown_workers()  # torch has no public way


def loader(
    views: Views, settings: Dataloader, chosen: Iterable[list[Row]], stay: bool = False
) -> DataLoader[tuple[Tensor, Tensor]]:
    """A loader of the chosen batches; one that is to `stay` has processes for many passes and draws from no seed."""
    return DataLoader(
        views,
        batch_sampler=chosen,
        collate_fn=_unchanged,
        num_workers=settings.workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=stay and settings.workers > 0,
        generator=torch.Generator() if stay else None,
        worker_init_fn=_deaf,
    )
