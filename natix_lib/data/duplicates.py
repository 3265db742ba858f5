"""Near-duplicates: pairs of images whose windows have near hashes, and which show the same when they are looked at.

Candidates come from sorting. The 64 bits of a hash are dealt to seven bands; for each three of them all hashes are
sorted by those bits, and neighbours that agree in them are compared. So every two hashes that differ in at most four
bits are found, of those that differ in six some half, in 35 sorts however the hashes lie. A key is packed with its
number into 64 bits, because sorting numbers is five times as fast as sorting their order. Comparing all hashes that
agree would be quadratic where many do: in a crowd each is compared with the next one alone, and equal hashes with the
one before.

Candidates are looked at nearest first, and only those that would join two groups, or have two labels: what other rules
hold together is not looked at again. At most MOST_LOOKS are looked at, some twenty minutes of one core.

Rejected: joining by hashes alone, which at the bits that find a turned copy joins strangers; searching all hashes
within some bits exactly, which takes 28 s for one hash each of a million images, and there are seventeen or more.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natix_lib.arrays import Ints
from natix_lib.cpus import cpu_threads
from natix_lib.data.alignment import Picture, agreement
from natix_lib.data.groups import Links, tree
from natix_lib.data.windows import MIRROR, WINDOWS

Hashes = NDArray[np.uint64]
BANDS, AGREEING = 7, 3  # of 64 bits: what differs in BANDS - AGREEING bits agrees in AGREEING bands
CROWD = 16  # hashes of one key, above which each is compared with the next alone
MOST_CANDIDATES = 2_000_000  # pairs, some 100 MB
MOST_LOOKS = 200_000  # pairs of pictures
MOST_ACROSS = 2_000  # pairs of pictures in two given splits
KEPT = 512  # pictures kept for the next look, 80 MB


MIRRORED = 128  # added to the slot of a mirrored hash


@dataclass(frozen=True)
class Crossing:
    """Near-duplicates in two different roles.

    Attributes:
        count: Number of pairs of images.
        exact: False where not all candidates were looked at and there may be more.
        nearest: Rows a and b and the bits between their nearest windows, nearest first, (k, 3).
    """

    count: int
    exact: bool
    nearest: Ints


@dataclass(frozen=True)
class NearDuplicates:
    """What the rule of near-duplicates finds.

    Attributes:
        links: What it joins that other rules do not, and images of two classes within a group that show the same.
        across: Near-duplicates in two given splits, which it does not join.
        unseen: Candidates that were not looked at, because there were more than MOST_LOOKS.
    """

    links: Links
    across: Crossing
    unseen: int


@dataclass(frozen=True)
class Candidate:
    """Two images of which two windows have near hashes.

    Attributes:
        a: Row of one.
        b: Row of the other, above a.
        slot_a: Number of its window, see `windows.placing`.
        slot_b: Number of the other's.
        mirrored: Whether one of them is mirrored.
        bits: Bits between the hashes.
    """

    a: int
    b: int
    slot_a: int
    slot_b: int
    mirrored: bool
    bits: int

    def __str__(self) -> str:
        """The evidence, in a few words."""
        windows = " on ".join(dict.fromkeys(WINDOWS[slot % len(WINDOWS)].name for slot in (self.slot_a, self.slot_b)))
        return f"{self.bits} of 64 bits differ, {windows}{', mirrored' * self.mirrored}"


def near_duplicates(
    hashes: Sequence[bytes | None],
    groups: Ints,
    labels: Ints,
    roles: Ints,
    bits: int,
    pictures: Callable[[int], Image.Image] | None = None,
) -> NearDuplicates:
    """Find images that show the same, however they were cropped, mirrored, turned or written on.

    Args:
        hashes: The hashes of each image's windows, see `windows.window_hashes`, (n,); None is near to nothing.
        groups: The smallest row of each image's group by the other rules, (n,).
        labels: Class number of each image, -1 for none, (n,): images of one group and two classes are looked at too.
        roles: Given role of each image, -1 for none, (n,); images of two roles are not joined but counted.
        bits: The most bits between two hashes whose images are looked at; negative joins nothing.
        pictures: Gives the image of a row; without it all candidates count as near-duplicates.
    """
    components, alike = groups.tolist(), list(range(len(hashes)))
    looks, across, unseen = 0, 0, 0
    why: dict[tuple[int, int], str] = {}
    pairs: list[Candidate] = []
    look = lru_cache(maxsize=KEPT)(lambda row: Picture(pictures(row))) if pictures else None
    for found in candidates(hashes, bits):
        divided = roles[found.a] != roles[found.b] and min(roles[found.a], roles[found.b]) >= 0
        first, second = _begin(components, found.a), _begin(components, found.b)
        one, other = _begin(alike, found.a), _begin(alike, found.b)
        two = labels[found.a] != labels[found.b] and min(labels[found.a], labels[found.b]) >= 0
        tells = first != second or (two and one != other)
        if not divided and not tells:
            continue
        if looks == MOST_LOOKS or (divided and across == MOST_ACROSS):
            unseen += 1
            continue
        looks, across = looks + 1, across + divided
        evidence = str(found)
        if look:
            seen = agreement(look(found.a), found.slot_a, look(found.b), found.slot_b, found.mirrored)
            if not seen.same:
                continue
            evidence += f"; {seen}"
        if divided:
            pairs.append(found)
        else:
            components[max(first, second)] = min(first, second)
            alike[max(one, other)] = min(one, other)
            why[found.a, found.b] = evidence
    a, b = np.array(list(why), dtype=np.int64).reshape(-1, 2).T
    to = tree(len(hashes), a, b)
    nearest = np.array([(pair.a, pair.b, pair.bits) for pair in pairs], dtype=np.int64).reshape(-1, 3)
    return NearDuplicates(
        links=Links(to, lambda row: why[min(row, int(to[row])), max(row, int(to[row]))]),
        across=Crossing(len(pairs), across < MOST_ACROSS and looks < MOST_LOOKS, nearest),
        unseen=unseen,
    )


def _begin(components: list[int], row: int) -> int:
    """The row that a row's component begins with."""
    while components[row] != row:
        components[row] = components[components[row]]
        row = components[row]
    return row


def candidates(hashes: Sequence[bytes | None], bits: int) -> Iterator[Candidate]:
    """The pairs of images of which two windows have hashes that differ in at most `bits` bits, nearest first.

    Args:
        hashes: The hashes of each image's windows, (n,); None is near to nothing.
        bits: The most bits that differ; negative finds nothing. Up to BANDS - AGREEING all pairs are found.
    """
    pool = _pool(hashes if bits >= 0 else [])
    order = np.argsort(pool.values)
    equal = np.flatnonzero(pool.values[order[1:]] == pool.values[order[:-1]])
    found = pool.nearest(np.stack([order[equal], order[equal + 1]], axis=1))
    numbers = np.sort(np.delete(order, equal + 1))
    distinct = pool.values[numbers]
    del order, equal
    choices = list(itertools.combinations(range(BANDS), AGREEING))
    with ThreadPoolExecutor(cpu_threads()) as threads:
        for start in range(0, len(choices), cpu_threads()):
            some = threads.map(lambda choice: _near(distinct, choice, bits), choices[start : start + cpu_threads()])
            found = pool.nearest(np.concatenate([found, *(numbers[pairs] for pairs in some)]))
    for one, other in found.tolist():
        slot, other_slot = int(pool.slots[one]), int(pool.slots[other])
        yield Candidate(
            a=int(pool.rows[one]),
            b=int(pool.rows[other]),
            slot_a=slot % MIRRORED,
            slot_b=other_slot % MIRRORED,
            mirrored=max(slot, other_slot) >= MIRRORED,
            bits=int(pool.values[one] ^ pool.values[other]).bit_count(),
        )


@dataclass(frozen=True)
class _Pool:
    """All hashes of all images.

    Attributes:
        values: Hashes, (m,).
        rows: Row of the image of each, (m,).
        slots: Number of its window, and MIRRORED more where it is mirrored, (m,).
    """

    values: Hashes
    rows: NDArray[np.int32]
    slots: NDArray[np.uint8]

    def nearest(self, pairs: Ints) -> Ints:
        """One pair of hashes for each pair of images, the nearest; pairs of images by rising distance, (k, 2)."""
        pairs = pairs[(self.rows[pairs[:, 0]] != self.rows[pairs[:, 1]]) & (self.slots[pairs].min(axis=1) < MIRRORED)]
        rows = self.rows[pairs].astype(np.int64)
        swapped = rows[:, 0] > rows[:, 1]
        pairs[swapped], rows[swapped] = pairs[swapped][:, ::-1], rows[swapped][:, ::-1]
        distance = np.bitwise_count(self.values[pairs[:, 0]] ^ self.values[pairs[:, 1]])
        both = (rows[:, 0] << 32) | rows[:, 1]
        order = np.lexsort((pairs[:, 1], pairs[:, 0], distance, both))
        order = order[np.append(True, np.diff(both[order]) != 0)[: len(order)]]
        order = order[np.argsort(distance[order], kind="stable")[:MOST_CANDIDATES]]
        nearest: Ints = pairs[order]
        return nearest


def _pool(hashes: Sequence[bytes | None]) -> _Pool:
    rows = np.array([row for row, value in enumerate(hashes) if value], dtype=np.int32)
    counts = np.array([len(value) // 8 for value in hashes if value], dtype=np.int64)
    values = np.frombuffer(b"".join(value for value in hashes if value), dtype="<u8").astype(np.uint64)
    owners = np.repeat(rows, counts)
    begins = np.repeat(np.cumsum(counts) - counts, counts)
    slots = (np.arange(len(values)) - begins).astype(np.uint8)
    whole = np.flatnonzero((slots % len(WINDOWS) == 0) & (values != 0))
    used = np.flatnonzero(values)
    return _Pool(
        np.concatenate([values[used], values[whole] ^ np.uint64(MIRROR)]),
        np.concatenate([owners[used], owners[whole]]),
        np.concatenate([slots[used], slots[whole] + np.uint8(MIRRORED)]),
    )


def _near(values: Hashes, choice: tuple[int, ...], bits: int) -> Ints:
    """Pairs of hashes that agree in the chosen bands and differ in at most `bits` bits, (k, 2)."""
    width = np.uint64(max(len(values) - 1, 1).bit_length())
    edges = np.linspace(0, 64, BANDS + 1).astype(int).tolist()
    keys = np.zeros(len(values), dtype=np.uint64)
    for band in choice:
        size = edges[band + 1] - edges[band]
        keys <<= np.uint64(size)
        keys |= (values >> np.uint64(edges[band])) & np.uint64((1 << size) - 1)
    keys <<= width
    keys |= np.arange(len(values), dtype=np.uint64)
    keys.sort()
    at = np.flatnonzero((keys[1:] ^ keys[:-1]) >> width == 0)  # places that agree with the next
    last = np.flatnonzero(np.append(np.diff(at) > 1, True)[: len(at)])
    run = np.diff(np.append(-1, last))  # neighbours that agree, of each run
    left = np.minimum(np.repeat(at[last], run) - at + 1, np.where(np.repeat(run, run) >= CROWD, 1, CROWD))
    numbers = np.uint64((1 << int(width)) - 1)
    found = [np.empty((0, 2), dtype=np.int64)]
    for shift in range(1, CROWD + 1):
        begin = at[left >= shift]
        a, b = (keys[begin] & numbers).astype(np.int64), (keys[begin + shift] & numbers).astype(np.int64)
        near = np.bitwise_count(values[a] ^ values[b]) <= bits
        found.append(np.stack([a[near], b[near]], axis=1))
    return np.concatenate(found)
