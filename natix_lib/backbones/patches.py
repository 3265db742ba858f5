"""A backbone that needs no download: filters of small patches, learnt from the images of TRAIN without their labels.

Patches of 6 pixels are brought to mean 0 and variance 1 and whitened, spherical k-means finds 200 directions in which
they lie, and an image is told by how far its patches go along each of them and against it (a two-sided rectifier),
by mean and maximum over the whole and over its quarters: 4,000 numbers. All of it but the maximum is one convolution
and a division, so it exports as such. A linear head on it is the baseline that a large model has to beat, and the road
for who has neither a GPU nor the hub; docs/performance.md has its figures.

It looks at some 30 positions a side whatever the size of the image: larger ones than 64 pixels are averaged down by a
whole number first. Measured on grouped folds of 867 road photographs at 64 pixels: two rectifier thresholds, .25 and
.5, are equal, 400 filters give nothing more, thirds in place of quarters cost one point, patches of 8 pixels half a
point, and the whole beside the quarters gains half a point.

References:
    Coates, Lee and Ng (2011), An Analysis of Single-Layer Networks in Unsupervised Feature Learning, AISTATS.
    Coates and Ng (2012), Learning Feature Representations with K-means, in Neural Networks: Tricks of the Trade.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, relu

from natix_lib.config.section import shown
from natix_lib.errors import ContractError
from natix_lib.grammar import PATCHES

MODEL_TYPE = "natix_patches"
FILTERS, SIDE = 200, 6
THRESHOLD = 0.25  # of the rectifier, in standard deviations of a patch along a direction
VARIANCE_FLOOR = 10 / 255**2  # Coates and Ng: ten grey levels squared
WHITENING_FLOOR = 0.1  # Coates and Ng, for patches of variance 1
ROUNDS = 25  # of k-means; they find that ten or more serve
LOOKED_AT = 64  # pixels a side that an image is averaged down to, at least
NUMBERS = 20  # of an image for each filter: 2 signs x (mean, maximum) x (the whole and 4 quarters)
SAMPLED = 100_000  # patches that filters are learnt from


@dataclass(frozen=True)
class PatchesConfig:
    """What config.json tells of this backbone.

    Attributes:
        filters: Directions K, from 1 to 4,096.
        side: Side P of a patch in pixels, from 2 to 16.
        model_type: `natix_patches`.
    """

    filters: int = FILTERS
    side: int = SIDE
    model_type: str = MODEL_TYPE

    def __post_init__(self) -> None:
        for key, value, least, most in (("filters", self.filters, 1, 4096), ("side", self.side, 2, 16)):
            if type(value) is not int or not least <= value <= most:
                raise ContractError(
                    f"config.json: {key} must be a whole number from {least} to {most}, got {shown(value)}"
                )

    @property
    def hidden_size(self) -> int:
        """Numbers of an image."""
        return NUMBERS * self.filters

    @property
    def patch_size(self) -> int:
        """What the side of an image must be a multiple of: of nothing."""
        return 1

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "PatchesConfig":
        """Read `to_dict` back.

        Raises:
            ContractError: If a key is missing or unknown, or a value out of its range.
        """
        if set(document) != set(asdict(cls())):
            raise ContractError(
                f"config.json of {PATCHES} must have {', '.join(asdict(cls()))}, got {shown(sorted(document))}"
            )
        return cls(**document)


class Patches(nn.Module):
    """Pixels (n, 3, S, S) in [0, 1] to features (n, 20 K), S above P."""

    filters: Tensor
    offset: Tensor

    def __init__(self, config: PatchesConfig) -> None:
        """Filters of zeros, which see nothing: they wait to be learnt, or for weights."""
        super().__init__()
        self.config = config
        self.filters = nn.Parameter(torch.zeros(config.filters, 3, config.side, config.side), requires_grad=False)
        self.offset = nn.Parameter(torch.zeros(config.filters), requires_grad=False)

    @property
    def learnt(self) -> bool:
        """Whether there are filters."""
        return bool(self.filters.any())

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (n, 20 K), float32."""
        small = averaged_down(pixels.float())
        side = self.config.side
        stride = 2 if small.shape[-1] >= 48 else 1
        mean = avg_pool2d(small.mean(dim=1, keepdim=True), side, stride)
        square = avg_pool2d((small * small).mean(dim=1, keepdim=True), side, stride)
        variance = (square - mean * mean).clamp_min(0.0) + VARIANCE_FLOOR
        along = conv2d(small, self.filters, stride=stride) * variance.rsqrt() + self.offset[:, None, None]
        half = along.shape[-1] // 2
        along = along[:, :, : 2 * half, : 2 * half]  # quarters alike: a last odd row of positions is left out
        numbers = []
        for signed in (along, -along):
            mean_of = avg_pool2d(relu(signed - THRESHOLD), half).flatten(2)
            most_of = relu(max_pool2d(signed, half).flatten(2) - THRESHOLD)
            numbers += [mean_of.mean(dim=2), most_of.amax(dim=2), mean_of.flatten(1), most_of.flatten(1)]
        return torch.cat(numbers, dim=1)

    @torch.no_grad()
    def learn(self, patches: Tensor, seed: int) -> None:
        """Take the filters from patches (m, 3, P, P) of `averaged_down` images."""
        filters, offset = learnt_filters(patches.flatten(1), self.config.filters, seed)
        self.filters.copy_(filters.reshape(self.filters.shape))
        self.offset.copy_(offset)


def averaged_down(pixels: Tensor) -> Tensor:
    """Pixels (n, 3, S, S) as (n, 3, s, s): by the largest whole factor that leaves s at least 64, or as they are."""
    factor = pixels.shape[-1] // LOOKED_AT
    return avg_pool2d(pixels, factor) if factor > 1 else pixels


def drawn_patches(images: Tensor, side: int, many: int, generator: torch.Generator) -> Tensor:
    """`many` patches of each image, at places drawn evenly.

    Args:
        images: Pixels, (n, 3, s, s).
        side: Side P of a patch, pixels, at most s.
        many: Patches of an image.
        generator: Decides the places.

    Returns:
        Patches (n many, 3, P, P).
    """
    places = images.shape[-1] - side + 1
    top, left = torch.randint(places, (2, len(images) * many), generator=generator)
    within = torch.arange(side)
    number = torch.arange(len(images)).repeat_interleave(many)
    rows, columns = top[:, None] + within, left[:, None] + within
    return images[number[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def learnt_filters(patches: Tensor, many: int, seed: int) -> tuple[Tensor, Tensor]:
    """Whitening and spherical k-means.

    Args:
        patches: Patches as rows, (m, D).
        many: Directions K to find.
        seed: Decides where k-means starts.

    Returns:
        Filters W (K, D), each of sum 0, and offsets b (K,): a patch x of variance v goes
        `W x / sqrt(v + VARIANCE_FLOOR) + b` along the directions.
    """
    values = patches.double()
    values = values - values.mean(dim=1, keepdim=True)
    values = values / (values.square().mean(dim=1, keepdim=True) + VARIANCE_FLOOR).sqrt()
    centre = values.mean(dim=0)
    values -= centre
    spread, axes = torch.linalg.eigh(values.T @ values / len(values))
    whitening = (axes * (spread + WHITENING_FLOOR).rsqrt()) @ axes.T
    white = (values @ whitening).float()
    directions = _spherical_k_means(white, many, seed).double() @ whitening
    offset = -(directions @ centre)
    return (directions - directions.mean(dim=1, keepdim=True)).float(), offset.float()


def _spherical_k_means(rows: Tensor, many: int, seed: int) -> Tensor:
    """Unit vectors (K, D): each row is told by its largest projection, and each vector is the sum of its rows."""
    generator = torch.Generator().manual_seed(seed)
    vectors = nn.functional.normalize(torch.randn(many, rows.shape[1], generator=generator))
    for _ in range(ROUNDS):
        sums = vectors.clone()  # a vector that no row is told by stays where it is
        for part in torch.split(rows, 10_000):
            along = part @ vectors.T
            nearest = along.abs().argmax(dim=1)
            length = along.gather(1, nearest[:, None])
            sums.index_add_(0, nearest, part * length)
        vectors = nn.functional.normalize(sums)
    return vectors
