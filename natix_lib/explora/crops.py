"""Multi-crop and colour augmentation, batched on the device.

What is drawn and what is done are apart: `draw` makes the numbers of every crop with numpy from (seed, micro-batch),
for the images of all processes, and each process takes its rows; `apply` is pure tensor work. So a crop depends on
nothing but the seed and its place, whatever the number of processes, and training can be continued bit for bit without
any saved generator state.

DINOv2's recipe (arXiv 2304.07193): random resized crops, mirroring, colour jitter, grey, blur, solarisation on the
second global crop. Crops are sampled straight from the stored image by `grid_sample`, bilinear; where a crop shrinks
it is sampled more densely and averaged, so that it does not alias. Hue is turned in YIQ, which is one 3 x 3 matrix,
rather than in HSV. torchvision is not needed.

A GPU is never waited for: what is small, boxes and matrices and which crops are sampled how densely, is computed on
the CPU from the draws, and the numbers of all crops go to the device in one copy from pinned memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from natix_lib.training.colour import BLUR_RADIUS, LUMA, SIGMA_OF_BLUR, blurred, mixed, shade, to_device

RATIO = (3 / 4, 4 / 3)
JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.8, 0.4, 0.4, 0.2, 0.1
GREY, SOLARIZE, SOLARIZE_ABOVE = 0.2, 0.2, 0.5
BLUR_GLOBAL, BLUR_LOCAL = (1.0, 0.1), 0.5
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
DENSEST = 4  # samples a pixel and axis
COLUMNS = (4, 2, 1, 3, 9, 1, 1, 1, 1)  # numbers of a crop on the device: what `_numbers` writes side by side


@dataclass(frozen=True)
class Draws:
    """The numbers of one crop of each of n images.

    Attributes:
        area: Share of the image's area, (n,).
        ratio: Width / height in pixels, (n,).
        place: Where the crop lies in what room there is, x and y in [0, 1), (n, 2).
        flip: Whether the crop is mirrored, (n,).
        colour: Brightness, contrast and saturation factors and the turn of the hue in radians, (n, 4).
        grey: Whether the crop becomes grey, (n,).
        sigma: Standard deviation of the blur in pixels at 224, 0 for none, (n,).
        solarize: Whether the crop is solarised, (n,).
    """

    area: NDArray[np.float32]
    ratio: NDArray[np.float32]
    place: NDArray[np.float32]
    flip: NDArray[np.bool_]
    colour: NDArray[np.float32]
    grey: NDArray[np.bool_]
    sigma: NDArray[np.float32]
    solarize: NDArray[np.bool_]

    def rows(self, chosen: slice) -> "Draws":
        """The numbers of some images."""
        return Draws(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


def draw(n: int, scale: tuple[float, float], blur: float, solarize: float, generator: np.random.Generator) -> Draws:
    """The numbers of one crop of each image.

    Args:
        n: Number of images.
        scale: Range of the crop's share of the image's area.
        blur: Probability that a crop is blurred, in [0, 1].
        solarize: Probability that a crop is solarised, in [0, 1].
        generator: Source of the numbers.
    """
    area = generator.uniform(*scale, n)
    ratio = np.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1]), n))
    place = generator.random((n, 2))
    flip = generator.random(n) < 0.5
    jittered = generator.random(n) < JITTER
    spread = np.array([BRIGHTNESS, CONTRAST, SATURATION, 2 * math.pi * HUE])
    colour = np.array([1.0, 1.0, 1.0, 0.0]) + jittered[:, None] * generator.uniform(-1, 1, (n, 4)) * spread
    grey = generator.random(n) < GREY
    sigma = (generator.random(n) < blur) * generator.uniform(*SIGMA_OF_BLUR, n)
    solarized = generator.random(n) < solarize
    return Draws(
        area.astype(np.float32),
        ratio.astype(np.float32),
        place.astype(np.float32),
        flip,
        colour.astype(np.float32),
        grey,
        sigma.astype(np.float32),
        solarized,
    )


def draw_crops(
    n: int,
    local_crops: int,
    global_scale: tuple[float, float],
    local_scale: tuple[float, float],
    generator: np.random.Generator,
) -> list[Draws]:
    """Two global crops, then the local ones, of each of n images."""
    first = draw(n, global_scale, BLUR_GLOBAL[0], 0.0, generator)
    second = draw(n, global_scale, BLUR_GLOBAL[1], SOLARIZE, generator)
    return [first, second, *(draw(n, local_scale, BLUR_LOCAL, 0.0, generator) for _ in range(local_crops))]


def apply(
    images: Tensor, sizes: Tensor, draws: Sequence[Draws], sides: Sequence[int], mean: Tensor, std: Tensor
) -> list[Tensor]:
    """Crops of images, each of `draws` one crop of each image.

    Args:
        images: Pixels, uint8 (n, 3, H, W); image i fills the top left `sizes[i]`, the rest is padding.
        sizes: Height and width of each image in pixels, (n, 2), on the CPU.
        draws: The numbers of these images' crops.
        sides: Side of each crop in pixels.
        mean: Mean of each channel that the backbone takes off, (3,), RGB in [0, 1], on the CPU.
        std: Standard deviation of each channel that it divides by, (3,), on the CPU.

    Returns:
        For each of `draws` float32 (n, 3, side, side), normalised, on the device of `images`.
    """
    numbers = [_numbers(each, sizes.float(), side) for each, side in zip(draws, sides, strict=True)]
    channels = torch.stack([mean, std, torch.tensor(LUMA)]).flatten()
    moved = to_device(torch.cat([channels, *(table.flatten() for table, _ in numbers)]), images.device)
    mean, std, luma = moved[: len(channels)].reshape(3, 3)
    pixels = images.float() / 255
    rows = moved[len(channels) :].reshape(len(draws), len(images), sum(COLUMNS))
    return [
        (_crop(pixels, table, counts, side, luma) - mean[:, None, None]) / std[:, None, None]
        for table, (_, counts), side in zip(rows, numbers, sides, strict=True)
    ]


def _numbers(draws: Draws, extent: Tensor, side: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """What the device is told of a crop, float32 (n, columns), and how many crops are sampled how densely, rising."""
    colour = torch.from_numpy(draws.colour)
    area, ratio, place = (torch.from_numpy(values) for values in (draws.area, draws.ratio, draws.place))
    box = boxes(area, ratio, place, extent)
    dense = (box[:, 2:].amax(dim=1) / side).round().clamp(1, DENSEST).long()
    columns = [
        box,
        extent,
        torch.from_numpy(draws.flip),
        colour[:, :3],
        _hue(colour[:, 3]).flatten(1),
        torch.from_numpy(draws.grey),
        torch.from_numpy(draws.sigma),
        torch.from_numpy(draws.solarize),
        dense.argsort(stable=True),
    ]
    table = torch.cat([values.float().reshape(len(extent), -1) for values in columns], dim=1)
    counts = torch.bincount(dense).tolist()
    return table, [(factor, count) for factor, count in enumerate(counts) if count]


def _crop(pixels: Tensor, table: Tensor, dense: list[tuple[int, int]], side: int, luma: Tensor) -> Tensor:
    """One crop of each image, in [0, 1]."""
    box, extent, flip, colour, hue, grey, sigma, solarize, order = table.split_with_sizes(COLUMNS, dim=1)
    crops = _sample(pixels, extent, box, flip[:, 0] > 0, side, order[:, 0].long(), dense)
    crops = _colour(crops, colour, hue.reshape(-1, 3, 3), grey[:, 0] > 0, luma)
    crops = blurred(crops, sigma[:, 0] * side / 224, math.ceil(BLUR_RADIUS * side / 224))
    return torch.where((solarize[:, :, None, None] > 0) & (crops >= SOLARIZE_ABOVE), 1 - crops, crops)


def boxes(area: Tensor, ratio: Tensor, place: Tensor, sizes: Tensor) -> Tensor:
    """Crops as left, top, width, height in pixels, inside images of `sizes` (height, width), each (n, 4)."""
    height, width = sizes[:, 0], sizes[:, 1]
    pixels = area * height * width
    w, h = torch.minimum((pixels * ratio).sqrt(), width), torch.minimum((pixels / ratio).sqrt(), height)
    return torch.stack([place[:, 0] * (width - w), place[:, 1] * (height - h), w, h], dim=1)


def _sample(
    images: Tensor, sizes: Tensor, box: Tensor, flip: Tensor, side: int, order: Tensor, dense: list[tuple[int, int]]
) -> Tensor:
    """Crops of `side` pixels; each is sampled as densely as it shrinks, whatever the others in its batch do."""
    crops = images.new_empty(len(images), images.shape[1], side, side)
    start = 0
    for factor, count in dense:
        rows = order[start : start + count]
        part = _resampled(images[rows], sizes[rows], box[rows], flip[rows], side * factor)
        crops[rows] = avg_pool2d(part, factor) if factor > 1 else part
        start += count
    return crops


def _resampled(images: Tensor, sizes: Tensor, box: Tensor, flip: Tensor, size: int) -> Tensor:
    """Bilinear crops; coordinates stay inside each image, so padding is never seen."""
    height, width = sizes[:, 0], sizes[:, 1]
    steps = (torch.arange(size, device=images.device) + 0.5) / size
    x = box[:, 0:1] + steps * box[:, 2:3] - 0.5
    y = box[:, 1:2] + steps * box[:, 3:4] - 0.5
    x = torch.where(flip[:, None], x.flip(1), x)
    x = torch.minimum(x.clamp_min(0), width[:, None] - 1) / max(images.shape[3] - 1, 1) * 2 - 1
    y = torch.minimum(y.clamp_min(0), height[:, None] - 1) / max(images.shape[2] - 1, 1) * 2 - 1
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _colour(pixels: Tensor, colour: Tensor, hue: Tensor, grey: Tensor, luma: Tensor) -> Tensor:
    """Brightness, contrast, saturation, hue, then grey, each clipped to [0, 1]."""
    brightness, contrast, saturation = (colour[:, i, None, None, None] for i in range(3))
    pixels = (pixels * brightness).clamp(0, 1)
    middle = shade(pixels, luma).mean(dim=(1, 2, 3), keepdim=True)
    pixels = mixed(pixels, middle, contrast)
    pixels = mixed(pixels, shade(pixels, luma), saturation)
    pixels = torch.einsum("nij,njhw->nihw", hue, pixels).clamp(0, 1)
    return torch.where(grey[:, None, None, None], shade(pixels, luma), pixels)


def _hue(angle: Tensor) -> Tensor:
    """Matrices that turn the hue by `angle` in YIQ, (n, 3, 3)."""
    to_yiq = angle.new_tensor(YIQ)
    cos, sin, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=-1).reshape(-1, 3, 3)
    result: Tensor = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return result
