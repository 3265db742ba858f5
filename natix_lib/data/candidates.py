"""Pairs of images of which two windows have near hashes, found by sorting.

The 64 bits of a hash are dealt to seven bands; for each three of them all hashes are sorted by those bits, and those
that agree in them are compared. So every two hashes that differ in at most four bits are found, of those that differ in
any six nearly two thirds, in 35 sorts however the hashes lie. A key is packed with its number into 64 bits, because
sorting numbers is five times as fast as sorting their order.

What is bounded, and how:

- Time: in a crowd, of which more than CROWD hashes agree, each is compared with the next alone, and equal hashes with
  the one before: comparing all would be quadratic. So a sort of m hashes compares at most CROWD * m. Pairs of a crowd
  that no sort compares are not counted as unseen, because nothing tells how many of them are near.
- Memory: hashes are compared in blocks, a pair that tells nothing new is dropped before it is kept, and of the others
  the MOST_CANDIDATES nearest are kept. That some were not is told by `Candidates.unseen`.

The result is the same on any number of threads: two sorts at a time, whose finds are taken in order.

Rejected: two of six bands, in 15 sorts, where of a million images each hash would agree with some nine strangers by
chance, reckoned and not measured; searching all hashes within some bits exactly, which takes 28 s for one hash each of
a million images, and there are seventeen or more.
"""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from natix_lib.arrays import Bools, Ints
from natix_lib.cpus import cpu_threads
from natix_lib.data.windows import MIRROR, WINDOWS

Numbers = NDArray[np.uint64]
BANDS, AGREEING = 7, 3  # of 64 bits: what differs in BANDS - AGREEING bits agrees in AGREEING bands
CROWD = 16  # hashes of one key, above which each is compared with the next alone
MOST_CANDIDATES = 2_000_000  # pairs of images, 16 MB
AT_ONCE = 2  # sorts, each in 150 MB for a million images
BLOCK = 1 << 17  # hashes compared at a time
LEARNT = 100_000  # pairs found, from which on others are compared with them in mind
BUFFER = 1 << 22  # pairs of hashes found, from which on the nearest pairs of images among them are picked
ROW_BITS, DISTANCE_BITS = 29, 6  # of a packed pair


class Telling(Protocol):
    """What is known of images before they are compared."""

    @property
    def kinds(self) -> NDArray[np.int32]:
        """A number of each image; two images of one number tell nothing new, (n,)."""

    def tells(self, a: Ints, b: Ints) -> Bools:
        """Which pairs of rows would tell something new, if they were near-duplicates, (k,)."""

    def needed(self, a: Ints, b: Ints) -> Bools:
        """Which of pairs that were found tell all that they tell together, (k,); all where each must be looked at."""

    def learn(self, a: Ints, b: Ints) -> None:
        """Take pairs for found: what they tell is not new afterwards."""


@dataclass(frozen=True)
class Candidates:
    """Pairs of images of which two windows have near hashes.

    Attributes:
        a: Row of one, (k,).
        b: Row of the other, above a, (k,).
        bits: Bits between the nearest of their windows, rising, (k,).
        unseen: Pairs that are not among them, because there were more than MOST_CANDIDATES; there may be more.
    """

    a: Ints
    b: Ints
    bits: Ints
    unseen: int


@dataclass(frozen=True)
class _Pool:
    """All hashes of all images, those of mirrored images last.

    Attributes:
        values: Hashes, (m,).
        rows: Row of the image of each, (m,).
        plain: How many are not mirrored.
    """

    values: Numbers
    rows: NDArray[np.int32]
    plain: int

    @property
    def width(self) -> int:
        """Bits of a number of a hash."""
        return max(len(self.values) - 1, 1).bit_length()


def candidates(hashes: Sequence[bytes | None], bits: int, known: Telling) -> Candidates:
    """The pairs of images of which two windows have hashes that differ in at most `bits` bits, nearest first.

    Args:
        hashes: The hashes of each image's windows, see `windows.window_hashes`, (n,); None is near to nothing.
        bits: The most bits that differ; negative finds nothing. Up to BANDS - AGREEING all pairs are found.
        known: Which pairs tell something new; the others are left out.
    """
    pool = _pool(hashes if bits >= 0 else [])
    keys, learnt = _mixed(pool), 0
    nearest, unseen = _of_a_sort(pool, keys, 0, 1, known, None)
    pool = _distinct(pool, keys)
    del keys
    choices = list(itertools.combinations(range(BANDS), AGREEING)) if len(pool.values) else []
    with ThreadPoolExecutor(min(AT_ONCE, cpu_threads())) as threads:
        for start in range(0, len(choices), AT_ONCE):
            if len(nearest) > learnt + LEARNT:
                known.learn(*_rows(nearest))
                learnt = len(nearest)
            last = nearest[-1] if len(nearest) == MOST_CANDIDATES else None
            sorts = list(
                threads.map(
                    lambda choice, last=last: _of_a_sort(pool, _keys(pool, choice), bits, CROWD, known, last),
                    choices[start : start + AT_ONCE],
                )
            )
            nearest, cut = _nearest([nearest, *(packed for packed, _ in sorts)], known)
            unseen = max(unseen, cut, *(each for _, each in sorts))
    a, b = _rows(nearest)
    return Candidates(a, b, (nearest >> np.uint64(2 * ROW_BITS)).astype(np.int64), unseen)


def _pool(hashes: Sequence[bytes | None]) -> _Pool:
    rows = np.array([row for row, value in enumerate(hashes) if value], dtype=np.int32)
    counts = np.array([len(value) // 8 for value in hashes if value], dtype=np.int32)
    values = np.frombuffer(b"".join(value for value in hashes if value), dtype="<u8")
    begins = np.cumsum(counts, dtype=np.int64) - counts
    bordered = counts > len(WINDOWS)
    whole = np.concatenate([begins, begins[bordered] + len(WINDOWS)])
    owners, owner = np.repeat(rows, counts), np.concatenate([rows, rows[bordered]])
    used, mirrored = values != 0, values[whole] != 0
    return _Pool(
        np.concatenate([values[used], values[whole[mirrored]] ^ np.uint64(MIRROR)]).astype(np.uint64, copy=False),
        np.concatenate([owners[used], owner[mirrored]]),
        int(np.count_nonzero(used)),
    )


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def _mixed(pool: _Pool) -> Numbers:
    """Sorted keys in which equal hashes are neighbours, and others by chance alone, however they lie, (m,)."""
    keys, width = np.empty_like(pool.values), np.uint64(pool.width)
    for start, stop in _blocks(len(keys)):
        key = pool.values[start:stop] * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
        key *= np.uint64(0xD6E8FEB86659FD93)
        key >>= width
        key <<= width
        keys[start:stop] = key | np.arange(start, stop, dtype=np.uint64)
    keys.sort()
    return keys


def _keys(pool: _Pool, choice: tuple[int, ...]) -> Numbers:
    """Sorted keys of the chosen bands and the number of the hash, (m,)."""
    edges = np.linspace(0, 64, BANDS + 1).astype(int).tolist()
    keys = np.empty_like(pool.values)
    for start, stop in _blocks(len(keys)):
        key = np.zeros(stop - start, dtype=np.uint64)
        for band in choice:
            size = edges[band + 1] - edges[band]
            key <<= np.uint64(size)
            key |= (pool.values[start:stop] >> np.uint64(edges[band])) & np.uint64((1 << size) - 1)
        key <<= np.uint64(pool.width)
        keys[start:stop] = key | np.arange(start, stop, dtype=np.uint64)
    keys.sort()
    return keys


def _distinct(pool: _Pool, keys: Numbers) -> _Pool:
    """The first of each of the equal hashes."""
    numbers = (keys & np.uint64((1 << pool.width) - 1)).astype(np.int32 if pool.width < 32 else np.int64)
    values = pool.values[numbers]
    again = np.zeros(len(values), dtype=bool)
    again[numbers[1:]] = values[1:] == values[:-1]
    if not again.any():
        return pool
    return _Pool(pool.values[~again], pool.rows[~again], pool.plain - int(np.count_nonzero(again[: pool.plain])))


def _of_a_sort(
    pool: _Pool, keys: Numbers, bits: int, crowd: int, known: Telling, last: np.uint64 | None
) -> tuple[Numbers, int]:
    """The nearest pairs of images among hashes of one key, packed and rising, and how many more there are at least.

    Args:
        pool: The hashes.
        keys: Sorted keys of them, in whose lowest bits are their numbers, (m,).
        bits: The most bits that differ.
        crowd: With how many of the next ones of its key a hash is compared.
        known: Which pairs tell something new.
        last: A packed pair; those that are no nearer are left out.
    """
    buffer, held, unseen = [np.empty(0, dtype=np.uint64)], 0, 0
    for start, stop in _blocks(len(keys)):
        for some in _compared(pool, keys, (start, stop), bits, crowd, known.kinds):
            one, other = np.minimum(*some[:2]), np.maximum(*some[:2])
            tells = known.tells(one, other)
            packed = _packed(one[tells], other[tells], some[2][tells])
            packed = packed if last is None else packed[packed < last]
            buffer.append(packed)
            held += len(packed)
        if held > BUFFER:
            pairs, cut = _nearest(buffer, known)
            buffer, held, unseen = [pairs], 0, max(unseen, cut)
    pairs, cut = _nearest(buffer, known)
    return pairs, max(unseen, cut)


def _compared(
    pool: _Pool, keys: Numbers, block: tuple[int, int], bits: int, crowd: int, kinds: NDArray[np.int32]
) -> Iterator[tuple[Ints, Ints, NDArray[np.uint8]]]:
    """Rows of images of two kinds and near hashes, the first in a block of the keys, and the bits between them."""
    start, stop = max(block[0] - crowd, 0), min(block[1] + crowd, len(keys))
    key = keys[start:stop] >> np.uint64(pool.width)
    same = key[1:] == key[:-1]
    member = np.flatnonzero(np.append(same, False) | np.append(False, same))
    number = (keys[start:stop][member] & np.uint64((1 << pool.width) - 1)).astype(np.int64)
    key, value, row, mirrored = key[member], pool.values[number], pool.rows[number], number >= pool.plain
    kind = kinds[row]
    begins = (member >= block[0] - start) & (member < block[1] - start)
    crowded = np.zeros(len(key), dtype=bool)
    crowded[:-crowd] = key[crowd:] == key[:-crowd]
    crowded[crowd:] |= crowded[:-crowd].copy()
    for shift in range(1, crowd + 1):
        same = key[shift:] == key[:-shift]
        if not same.any():
            return
        a = np.flatnonzero(same & begins[:-shift] & (kind[shift:] != kind[:-shift]))
        b = a + shift
        distance = np.bitwise_count(value[a] ^ value[b])
        near = (distance <= bits) & ~(mirrored[a] & mirrored[b])
        yield row[a[near]].astype(np.int64), row[b[near]].astype(np.int64), distance[near]
        if shift == 1:
            begins &= ~crowded


def _packed(a: Ints, b: Ints, bits: NDArray[np.uint8]) -> Numbers:
    """Pairs of rows that sort by distance, (k,)."""
    rows = (a.astype(np.uint64) << np.uint64(ROW_BITS)) | b.astype(np.uint64)
    return rows | bits.astype(np.uint64) << np.uint64(2 * ROW_BITS)


def _rows(packed: Numbers) -> tuple[Ints, Ints]:
    rows = np.uint64((1 << ROW_BITS) - 1)
    return (packed >> np.uint64(ROW_BITS) & rows).astype(np.int64), (packed & rows).astype(np.int64)


def _nearest(some: list[Numbers], known: Telling) -> tuple[Numbers, int]:
    """Each packed pair of rows once, the nearest, by rising distance, and how many were above MOST_CANDIDATES."""
    packed = np.concatenate(some)
    pairs = packed << np.uint64(DISTANCE_BITS) | packed >> np.uint64(2 * ROW_BITS)
    pairs.sort()
    first = np.append(True, pairs[1:] >> np.uint64(DISTANCE_BITS) != pairs[:-1] >> np.uint64(DISTANCE_BITS))
    pairs = pairs[first[: len(pairs)]]
    packed = pairs >> np.uint64(DISTANCE_BITS) | pairs << np.uint64(2 * ROW_BITS)
    if len(packed) > MOST_CANDIDATES:
        packed = packed[known.needed(*_rows(packed))]
    packed.sort()
    return packed[:MOST_CANDIDATES], max(len(packed) - MOST_CANDIDATES, 0)
