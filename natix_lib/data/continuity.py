"""Do neighbours in an order look like consecutive frames, more than images that are far apart in it?

Asked of a whole order, not of a pair: in CamVid a half of the frames one second apart differ in 10 to 20 of 64 bits of
their perceptual hash, and so do some photographs of different streets. But nine of ten neighbours differ in fewer bits
than a neighbour and a stranger, where of 399 numbered photographs from the web it is half of them, as by chance. The
strangers of an image have its label: else numbered folders of classes would look like drives. Measured on these two,
8 strangers an image: .80 to .92 and .52.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natix_lib.arrays import Bools, Floats, Ints
from natix_lib.data.windows import whole_hash

STRANGERS = 8  # drawn for each pair
FAR = 16  # places in the order from which on an image is a stranger; fewer where there are few images
PAIRS = 10  # below which an order is not judged
SURE = 3.0  # standard errors above chance: one order of 700 passes by luck
FRAMES, STREETS = 0.65, 0.55  # share of neighbours nearer than strangers: from here on frames, up to here no frames
CHANCE, WIDTH = 0.5, 64
DRAWN = 20_000  # pairs of any two images
RARE = 0.02  # share of strangers that differ as little as two neighbours that are said to look alike


@dataclass(frozen=True)
class Looks:
    """What is known of how images look.

    Attributes:
        hashes: Perceptual hash of each image, 0 where there is none, (n,).
        seen: Which images have one, (n,).
    """

    hashes: NDArray[np.uint64]
    seen: Bools

    def differ(self, a: Ints | list[int], b: Ints | list[int]) -> Ints:
        """Bits in which rows a and rows b differ, (k,)."""
        bits: Ints = np.bitwise_count(self.hashes[a] ^ self.hashes[b]).astype(np.int64)
        return bits

    def rare(self) -> int:
        """Bits up to which only RARE of the pairs of any two images differ; -1 for none."""
        rows = np.flatnonzero(self.seen)
        if len(rows) < 2:
            return -1
        a, b = np.random.default_rng(0).choice(rows, (2, DRAWN))
        bits = np.bincount(self.differ(a[a != b], b[a != b]), minlength=1)
        return int(np.count_nonzero(np.cumsum(bits) <= RARE * bits.sum())) - 1


def looks(hashes: Sequence[bytes | None]) -> Looks:
    """How images look by the hash of the whole picture.

    Args:
        hashes: The hashes of each image's windows, see `windows.window_hashes`, (n,).
    """
    whole = [whole_hash(value) for value in hashes]
    seen = np.array([value is not None for value in whole], dtype=bool)
    return Looks(np.array([value or 0 for value in whole], dtype=np.uint64), seen)


@dataclass(frozen=True)
class Verdict:
    """How continuous each order is.

    Attributes:
        share: Share of neighbours that differ less than one of them and a stranger, ties a half; NaN where fewer than
            PAIRS of them can be judged, (orders,).
        frames: Orders in which neighbours are surely frames, (orders,).
        likely: Orders in which they are frames as far as few pairs can tell, (orders,).
        streets: Orders in which they look no more alike than strangers, (orders,).
        alike: Bits up to which two neighbours look alike as only RARE of the strangers do, or of any two images, since
            an order of one drive has no strangers; -1 for none, (orders,).
    """

    share: Floats
    frames: Bools
    likely: Bools
    streets: Bools
    alike: Ints


def judge(pictures: Looks, pairs: Ints, order: Ints, pool: Ints, rank: Ints) -> Verdict:
    """Judge orders by their neighbours.

    Args:
        pictures: How the images look, n of them.
        pairs: Rows of neighbours, (k, 2).
        order: Number of each pair's order, 0, 1, ..., (k,).
        pool: Number of the images among which a row's strangers are, (n,); -1 for none.
        rank: Rows of all pools, those of a pool one after another as they follow in the order, (m,).
    """
    orders = int(order.max()) + 1 if len(order) else 0
    place = np.full(len(pool), -1)
    place[rank] = np.arange(len(rank))
    sizes = np.bincount(pool[rank], minlength=1)
    fit = pictures.seen[pairs].all(axis=1) & (pool[pairs[:, 0]] >= 0)
    fit[fit] = sizes[pool[pairs[fit, 0]]] > 2  # so that there is a stranger
    a, b, order = pairs[fit, 0], pairs[fit, 1], order[fit]
    judged = np.bincount(order, minlength=orders) >= PAIRS
    a, b, order = a[judged[order]], b[judged[order]], order[judged[order]]
    number = np.cumsum(judged) - 1  # of an order among the judged
    size = sizes[pool[a]]
    start = (np.cumsum(sizes) - sizes)[pool[a]]
    far = np.clip(size // 4, 1, FAR)
    generator, near = np.random.default_rng(0), pictures.differ(a, b)
    won, known = np.zeros(len(a)), np.zeros(len(a))
    bits = np.zeros((max(int(judged.sum()), 1), WIDTH + 1), dtype=np.int64)
    for _ in range(STRANGERS):
        shift = far + (generator.random(len(a)) * (size - 2 * far + 1)).astype(np.int64)
        stranger = rank[start + (place[a] - start + shift) % np.maximum(size, 1)]
        away, seen = pictures.differ(a, stranger), pictures.seen[stranger]
        won += seen * ((near < away) + 0.5 * (near == away))
        known += seen
        np.add.at(bits, (number[order[seen]], away[seen]), 1)
    share = np.full(orders, np.nan)
    count = np.maximum(np.bincount(order, minlength=orders), 1)
    won = np.where(known > 0, won / np.maximum(known, 1), 0.5)
    share[judged] = (np.bincount(order, won, minlength=orders) / count)[judged]
    spread = np.bincount(order, (won - share[order]) ** 2, minlength=orders) / count
    alike = np.full(orders, -1)
    rare = np.cumsum(bits, axis=1) <= RARE * bits.sum(axis=1, keepdims=True)
    alike[judged] = np.maximum(rare.sum(axis=1)[: judged.sum()] - 1, pictures.rare())
    with np.errstate(invalid="ignore"):
        frames = (share >= FRAMES) & (share - SURE * np.sqrt(spread / count) > CHANCE)
        return Verdict(share, frames, share >= FRAMES, share < STREETS, alike)
