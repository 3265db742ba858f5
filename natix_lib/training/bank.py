"""Features of all views of all images, where there is room for them, and batches of them.

Features of a million images with four views at a width of 8,192 are 131 GB in float32. Where they stay is decided by
their size alone: on the device that trains where they take at most two fifths of its memory; else on a GPU in bfloat16,
if they were computed in that and half of them fits; else in a file of the folder for temporary files (TMPDIR), mapped
into memory, of which the operating system keeps as much as there is room for. Results are the same but for bfloat16's
rounding, to which features of a bfloat16 pass are good anyway. A config key was rejected: whoever would set it would
compute what is computed here. The memory asked about is all that the device has, not what is free, so that the same
machine decides alike each time.

Of a file, a thread reads the next batch while this one is trained on, into pinned memory, from which it is copied to a
GPU without waiting. The file has no name any more once it is mapped: a process that is killed leaves nothing.
Each process of a machine has a bank of its own, as each one trains the head for itself.
"""

import os
import tempfile
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natix_lib.cpus import memory_limit
from natix_lib.errors import TrainingError

SHARE = 0.4  # of a device's memory; the backbone, its batches and what is fitted need the rest
BLOCK = 65_536  # images whose moments are taken at once


def room_on(device: torch.device, processes: int = 1) -> int:
    """Bytes that a bank may take of the memory of a device, which so many processes of this machine share if a CPU."""
    if device.type == "cuda":
        return int(SHARE * torch.cuda.get_device_properties(device).total_memory)
    return int(SHARE * memory_limit() / processes)


def allocated(shape: tuple[int, ...], dtype: torch.dtype, room: int) -> Tensor:
    """A tensor of the CPU with any content: in memory if it takes at most `room` bytes, else in a mapped file.

    Raises:
        TrainingError: If the disk has no room for the file.
    """
    size = torch.Size(shape).numel()
    nbytes = size * dtype.itemsize
    return torch.empty(shape, dtype=dtype) if nbytes <= room else _mapped(size, nbytes, dtype).view(shape)


def taken(values: Tensor, rows: NDArray[np.int64], room: int) -> Tensor:
    """Some rows of a tensor of the CPU, where `allocated` puts them."""
    result = allocated((len(rows), *values.shape[1:]), values.dtype, room)
    return torch.index_select(values, 0, torch.from_numpy(rows), out=result)


class FeatureBank:
    """Features of K views of n images, each F numbers.

    Attributes:
        values: The features (n, K, F), float32 or bfloat16; parts of it may be assigned.
        mapped: Whether they lie in a file.
    """

    def __init__(
        self, shape: tuple[int, int, int], device: torch.device, room: int, computed_in: torch.dtype | None = None
    ) -> None:
        """Make room for features.

        Args:
            shape: n, K and F.
            device: Where batches are wanted.
            room: Bytes that the bank may take of the device's memory, as `room_on` says.
            computed_in: Autocast that the features come from; None is float32.

        Raises:
            TrainingError: If neither the device nor the disk has room.
        """
        self.device = device
        needed = torch.Size(shape).numel() * torch.float32.itemsize
        halved = needed > room and computed_in is torch.bfloat16 and device.type == "cuda"
        dtype = torch.bfloat16 if halved else torch.float32
        self.mapped = (needed // 2 if halved else needed) > room
        self.values = allocated(shape, dtype, 0) if self.mapped else torch.empty(shape, dtype=dtype, device=device)

    def batches(self, order: Tensor, views: Tensor, size: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of a view of each image.

        Args:
            order: Numbers of the images, (m,), on the CPU.
            views: Number of the view of each of these, (m,), on the CPU.
            size: Images of a batch; the last one may have fewer.
            start: Number of the first batch to give, from 0.

        Yields:
            Numbers of the images (b,) and features float32 (b, F), on the device.
        """
        here = torch.split(order.to(self.device), size)[start:]
        if self.mapped:
            wanted = zip(torch.split(order, size)[start:], torch.split(views, size)[start:], strict=True)
            with closing(self._read_ahead(wanted)) as features:
                yield from zip(here, features, strict=True)
        else:
            for rows, chosen in zip(here, torch.split(views.to(self.device), size)[start:], strict=True):
                yield rows, self.values[rows, chosen].float()

    def _read_ahead(self, wanted: Iterable[tuple[Tensor, Tensor]]) -> Generator[Tensor]:
        """Features of each batch; the next one is read while one is used."""
        with ThreadPoolExecutor(1) as thread:
            ahead: Future[Tensor] | None = None
            for rows, chosen in wanted:
                before, ahead = ahead, thread.submit(self._read, rows, chosen)
                if before:
                    yield self._given(before.result())
            if ahead:
                yield self._given(ahead.result())

    def _read(self, rows: Tensor, chosen: Tensor) -> Tensor:
        features = self.values[rows, chosen]
        if self.device.type != "cuda":
            return features
        with torch.cuda.device(self.device):  # else the thread would start another GPU's context
            return features.pin_memory()

    def _given(self, features: Tensor) -> Tensor:
        return features.to(self.device, non_blocking=True).float()


def std_mean(values: Tensor, device: torch.device, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean of each feature over images, without a copy of all of them.

    Moments of blocks are merged (Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing
    sample variances, 1979), so that nothing cancels.

    Args:
        values: Features (n, F), or (n, V, F) of views whose mean counts; n at least 1.
        device: Where it is computed.
        block: Images at once.

    Returns:
        Both float64 (F,), the deviation without Bessel's correction.
    """
    parts = torch.split(values, block)
    std, mean = _std_mean(parts[0], device)
    seen = len(parts[0])
    for part in parts[1:]:
        of_part, mean_of_part = _std_mean(part, device)
        share = len(part) / (seen + len(part))
        apart = mean_of_part - mean
        variance = (1 - share) * std.square() + share * of_part.square() + share * (1 - share) * apart.square()
        std, mean, seen = variance.sqrt(), mean + share * apart, seen + len(part)
    return std, mean


def _std_mean(values: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    of_images = values if values.ndim == 2 else values.mean(dim=1)
    std, mean = torch.std_mean(of_images.to(device).double(), dim=0, correction=0)
    return std, mean


def _mapped(size: int, nbytes: int, dtype: torch.dtype) -> Tensor:
    """So many numbers in a file that lives as long as they do; its bytes are taken from the disk at once."""
    handle, path = tempfile.mkstemp(prefix="natix-features-")
    try:
        os.posix_fallocate(handle, 0, nbytes)  # a disk that is full later would end the process without a word
        return torch.from_file(path, shared=True, size=size, dtype=dtype)
    except OSError as error:
        raise TrainingError(
            f"cached features need {nbytes / 1e9:.1f} GB on the disk of {Path(path).parent}: {error.strerror}; "
            "name a larger folder in TMPDIR; fewer training.views need less"
        ) from error
    finally:
        os.close(handle)
        Path(path).unlink(missing_ok=True)
