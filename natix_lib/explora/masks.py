"""Block masks of iBOT: rectangles until the wanted share of patches is covered, on a share of the images.

BEiT's block-wise masking (arXiv 2106.08254), as in DINOv2: blocks of at least four patches, aspect ratio from .3 to
1/.3. Of n masked images the i-th gets a ratio from the i-th of n equal parts of the range, so every batch sees all of
it.
"""

import math

import numpy as np
from numpy.typing import NDArray

LEAST_BLOCK = 4  # patches
LEAST_ASPECT = 0.3
TRIES = 10  # for one block


def block_mask(height: int, width: int, target: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """A mask of `target` patches or a few less, (height, width), made of rectangles.

    Fewer are covered when no block of at least `LEAST_BLOCK` patches fits any more.
    """
    mask = np.zeros((height, width), dtype=np.bool_)
    while (left := target - int(mask.sum())) > 0:
        added = _add_block(mask, left, generator)
        if not added:
            break
    return mask


def _add_block(mask: NDArray[np.bool_], most: int, generator: np.random.Generator) -> int:
    """Cover a rectangle that adds at most `most` patches; how many it added."""
    height, width = mask.shape
    for _ in range(TRIES):
        area = generator.uniform(LEAST_BLOCK, max(most, LEAST_BLOCK))
        aspect = math.exp(generator.uniform(math.log(LEAST_ASPECT), -math.log(LEAST_ASPECT)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        fits = 0 < h < height and 0 < w < width
        if not fits or h * w < LEAST_BLOCK or min(h, w) < LEAST_ASPECT * max(h, w):
            continue
        top, left = int(generator.integers(0, height - h + 1)), int(generator.integers(0, width - w + 1))
        block = mask[top : top + h, left : left + w]
        added = h * w - int(block.sum())
        if 0 < added <= most:
            block[:] = True
            return added
    return 0


def batch_masks(
    images: int,
    height: int,
    width: int,
    share: float,
    ratios: tuple[float, float],
    generator: np.random.Generator,
) -> NDArray[np.bool_]:
    """Masks of a batch, (images, height * width): `share` of the images, chosen at random, are masked."""
    masks = np.zeros((images, height, width), dtype=np.bool_)
    chosen = generator.permutation(images)[: round(images * share)]
    edges = np.linspace(*ratios, len(chosen) + 1)
    for image, low, high in zip(chosen, edges[:-1], edges[1:], strict=True):
        target = int(height * width * generator.uniform(low, high))
        masks[image] = block_mask(height, width, target, generator)
    return masks.reshape(images, -1)
