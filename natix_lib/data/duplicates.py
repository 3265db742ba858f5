"""Near-duplicates among 64-bit perceptual hashes: exact, in time that hardly depends on how the hashes lie.

The 64 bits are dealt to some bands. Hashes that differ in `bits` bits agree in all bands but `bits`, so for every
choice of that many bands fewer the hashes are sorted by the bands chosen and only those that stay equal are compared:
four bits and a million hashes take 15 sorts by two of six bands. Bits are dealt by how much they tell, each band its
share, because hashes with a common prefix would all be equal in the prefix's bands.

Where many hashes still agree, comparing all of them would be quadratic. They are compared with their next few
neighbours, what is one component by then is left, and the others are sorted anew by more and longer keys, or the few
outside the largest component are compared with all. Bands of which one must agree (`bits + 1` bands) were rejected:
28 s for a million hashes, minutes for bad ones.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natix_lib.arrays import Ints
from natix_lib.data.groups import joined
from natix_lib.errors import DataError

Hashes = NDArray[np.uint64]
WIDTH = 64  # bits of a hash
CROWD = 32  # hashes of one key; more are sorted anew by longer keys, and then four times as many are no crowd
NEIGHBOURS = 8  # of a crowd, compared at once: what lies dense is one component after that
SORT = 10  # comparisons that sorting one hash costs
MOST_WORK = 2e10  # comparisons, some five minutes of one core
MOST_WORK_ACROSS = 2e9
BLOCK = 1 << 22  # comparisons at a time, some 100 MB


def near_duplicates(hashes: Sequence[int | None], bits: int) -> Ints:
    """Join 64-bit hashes that differ in at most `bits` bits; exact.

    Args:
        hashes: Hash of each image, (n,); None joins nothing.
        bits: The most bits that differ, 0 to 16; negative joins nothing.

    Returns:
        The smallest row that each row is joined to, (n,).

    Raises:
        DataError: If it would take more than MOST_WORK comparisons.
    """
    rows = np.array([row for row, value in enumerate(hashes) if value is not None], dtype=np.int64)
    if not len(rows) or bits < 0:
        return np.arange(len(hashes))
    values = np.array([hashes[row] for row in rows], dtype=np.uint64)
    distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return joined(len(hashes), rows, rows[first[_joined(distinct, bits)[inverse]]])


@dataclass(frozen=True)
class Crossing:
    """Near-duplicates in two different roles.

    Attributes:
        count: Number of pairs of rows.
        exact: False where counting ended at MOST_WORK_ACROSS comparisons and there may be more.
        nearest: Rows a and b and the bits between them, nearest first, (k, 3).
    """

    count: int
    exact: bool
    nearest: Ints


def near_duplicates_across(hashes: Sequence[int | None], roles: Ints, bits: int, most: int) -> Crossing:
    """Count the pairs of rows in different roles whose hashes differ in at most `bits` bits.

    Args:
        hashes: Hash of each image, (n,); None is near to nothing.
        roles: Role numbers, (n,); a negative one is no role.
        bits: The most bits that differ, 0 to 16; negative finds nothing.
        most: The most pairs to list.
    """
    rows = np.array([row for row, value in enumerate(hashes) if value is not None and roles[row] >= 0], dtype=np.int64)
    count, work, nearest = 0, 0, np.empty((0, 3), dtype=np.int64)
    if len(np.unique(roles[rows])) < 2 or bits < 0:
        return Crossing(0, True, nearest)
    values = np.array([hashes[row] for row in rows], dtype=np.uint64)
    order = np.lexsort((rows, roles[rows], values))
    rows, values = rows[order], values[order]
    starts = np.flatnonzero(np.append(True, (np.diff(values) != 0) | (np.diff(roles[rows]) != 0)))
    sizes = np.diff(np.append(starts, len(rows)))
    values, role = values[starts], roles[rows[starts]]
    masks = _masks(values, _bands(len(values), bits)[0])
    for choice in itertools.combinations(range(len(masks)), len(masks) - bits):
        order, run, ends = _runs(values, masks, choice)
        mixed = np.minimum.reduceat(role[order], ends) != np.maximum.reduceat(role[order], ends)
        for i, j in _followed(run, np.where(mixed, len(order), 0)):
            work += len(i)
            a, b = order[i], order[j]
            differ = values[a] ^ values[b]
            close = (np.bitwise_count(differ) <= bits) & (role[a] != role[b])
            close[close] = _is_first_choice(differ[close], masks, choice)
            a, b, distance = a[close], b[close], np.bitwise_count(differ[close]).astype(np.int64)
            count += int((sizes[a] * sizes[b]).sum())
            pairs = np.concatenate([nearest, np.stack([np.minimum(a, b), np.maximum(a, b), distance], axis=1)])
            nearest = pairs[np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 2]))[:most]] if len(a) else nearest
            if work > MOST_WORK_ACROSS:
                return Crossing(count, False, _of_rows(nearest, rows, starts, sizes, most))
    return Crossing(count, True, _of_rows(nearest, rows, starts, sizes, most))


def _of_rows(nodes: Ints, rows: Ints, starts: Ints, sizes: Ints, most: int) -> Ints:
    """Pairs of rows from pairs of distinct hashes, (k, 3)."""
    pairs: list[tuple[int, int, int]] = []
    for a, b, distance in nodes.tolist():
        for i, j in itertools.product(rows[starts[a] :][: sizes[a]].tolist(), rows[starts[b] :][: sizes[b]].tolist()):
            if len(pairs) == most:
                return np.array(pairs, dtype=np.int64)
            pairs.append((min(i, j), max(i, j), distance))
    return np.array(pairs, dtype=np.int64).reshape(-1, 3)


def _joined(values: Hashes, bits: int) -> Ints:
    """The smallest of the distinct hashes that each is joined to, (n,)."""
    links = _Links(len(values))
    rows, least_bands, crowd = np.arange(len(values)), bits + 1, CROWD
    while len(rows):
        labels = links.labels()[rows]
        outside = np.flatnonzero(labels != np.bincount(labels).argmax())
        part = values[rows]
        bands, run_size, cost = _bands(len(part), bits, least_bands)
        work = min(cost, len(outside) * len(rows))
        if work > MOST_WORK:
            raise DataError(
                f"near-duplicates of up to {bits} bits take some {work:.0e} comparisons for {len(values)} different "
                f"hashes, at most {MOST_WORK:.0e} are made: lower split.near_duplicate_bits"
            )
        if len(outside) * len(rows) <= cost:
            _compare_all(links, values, rows[outside], rows, bits)
            break
        rows = rows[_compare_by_bands(links, rows, part, bits, bands, max(crowd, 4 * run_size))]
        least_bands, crowd = bands + 2, 4 * crowd
    return links.labels()


class _Links:
    """Links between rows, folded into components before they take more memory than the rows."""

    def __init__(self, rows: int) -> None:
        self._labels, self._count = np.arange(rows), 0
        self._new: list[tuple[Ints, Ints]] = []

    def add(self, a: Ints, b: Ints) -> None:
        new = self._labels[a] != self._labels[b]
        a, b = a[new], b[new]
        if len(a):
            self._new.append((a, b))
            self._count += len(a)
            if self._count > len(self._labels):
                self.labels()

    def labels(self) -> Ints:
        """The smallest row that each row is joined to."""
        if self._new:
            rows = np.arange(len(self._labels))
            a, b = (np.concatenate(side) for side in zip((rows, self._labels), *self._new, strict=True))
            self._labels, self._new, self._count = joined(len(rows), a, b), [], 0
        return self._labels


def _compare_all(links: _Links, values: Hashes, some: Ints, rows: Ints, bits: int) -> None:
    for part in np.array_split(some, 1 + len(some) * len(rows) // BLOCK):
        i, j = np.nonzero(np.bitwise_count(values[part, None] ^ values[rows]) <= bits)
        links.add(part[i], rows[j])


def _compare_by_bands(
    links: _Links, rows: Ints, values: Hashes, bits: int, bands: int, crowd: float
) -> NDArray[np.bool_]:
    """Link what is near; which of the rows stood in a crowd that was not looked through, (n,)."""
    crowded = np.zeros(len(rows), dtype=bool)
    masks = _masks(values, bands)
    for choice in itertools.combinations(range(bands), bands - bits):
        order, run, ends = _runs(values, masks, choice)
        size = np.diff(np.append(ends, len(order)))
        is_open, large = size > 1, size > crowd
        if large.any():
            label = links.labels()[rows[order]]
            is_open &= np.minimum.reduceat(label, ends) != np.maximum.reduceat(label, ends)
            large &= is_open
        crowded[order[large[run]]] = True
        ordered, at = values[order], rows[order]
        for i, j in _followed(run, np.where(large, NEIGHBOURS, size) * is_open):
            close = np.bitwise_count(ordered[i] ^ ordered[j]) <= bits
            links.add(at[i[close]], at[j[close]])
    return crowded


def _runs(values: Hashes, masks: list[int], choice: tuple[int, ...]) -> tuple[Ints, Ints, Ints]:
    """Order by the chosen bands (n,), the run of equal ones at each place (n,), and the place where each run begins."""
    keys = values & np.uint64(sum(masks[band] for band in choice))
    order = np.argsort(keys)
    begins = np.append(True, keys[order][1:] != keys[order][:-1])
    return order, np.cumsum(begins) - 1, np.flatnonzero(begins)


def _followed(run: Ints, shifts: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Places i, and places j that lie 1, 2, ... after them in the same run, at most `shifts` of the run."""
    i = np.flatnonzero(shifts[run] > 0)
    for shift in itertools.count(1):
        i = i[i + shift < len(run)]
        i = i[(run[i + shift] == run[i]) & (shifts[run[i]] >= shift)]
        if not len(i):
            return
        yield i, i + shift


def _bands(rows: int, bits: int, least: int = 0) -> tuple[int, float, float]:
    """The cheapest number of bands for random hashes, the hashes of one key, and the comparisons that it takes.

    With `bits` bands no band is chosen, all hashes are of one key, and all pairs are compared.
    """
    options = []
    for bands in {max(least, bits), *range(max(least, bits + 1), WIDTH + 1)}:
        size = rows / 2 ** (WIDTH * (bands - bits) / max(bands, 1))
        options.append((math.comb(bands, bits) * rows * (SORT + size / 2), bands, size))
    cost, bands, size = min(options)
    return bands, size, cost


def _information(values: Hashes) -> list[float]:
    """Entropy of each bit, in bits."""
    share = [float(((values >> np.uint64(bit)) & np.uint64(1)).mean()) for bit in range(WIDTH)]
    return [-sum(p * math.log2(p) for p in (one, 1 - one) if p) for one in share]


def _masks(values: Hashes, bands: int) -> list[int]:
    """The bits of each band, dealt so that every band tells about as much."""
    information = _information(values)
    mixed = np.random.default_rng(0).permutation(WIDTH).tolist()  # neighbours in a hash can be alike
    dealt = sorted(mixed, key=lambda bit: -information[bit])
    turns = [*range(bands), *reversed(range(bands))]
    masks = [0] * bands
    for turn, bit in enumerate(dealt if bands else []):
        masks[turns[turn % len(turns)]] |= 1 << bit
    return masks


def _is_first_choice(differ: Hashes, masks: list[int], choice: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether a pair that agrees in the chosen bands agrees in none before them, so that it is counted once."""
    first = np.ones(len(differ), dtype=bool)
    for band in set(range(max(choice, default=0))) - set(choice):
        first &= (differ & np.uint64(masks[band])) != 0
    return first
