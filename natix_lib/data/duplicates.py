"""Near-duplicates: pairs of images whose windows have near hashes, and which show the same when they are looked at.

Candidates, see `candidates.py`, are looked at nearest first, and only those that would join two groups, or have two
labels: what other rules hold together is not looked at again, and not even kept. At most MOST_LOOKS are looked at, some
twenty minutes of one core, and at most MOST_ACROSS of them because they lie in two given splits. What was not looked at
is not joined, and its number is `NearDuplicates.unseen`, of which split warns. Without pictures all candidates count;
then those that are joined already by candidates found before tell nothing new, and no loop goes over them.

Rejected: joining by hashes alone, which at the bits that find a turned copy joins strangers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natix_lib.arrays import Bools, Ints
from natix_lib.data.alignment import Picture, agreement
from natix_lib.data.candidates import Candidates, candidates
from natix_lib.data.groups import Links, differ, joined_to, tree
from natix_lib.data.windows import MIRROR, WINDOWS

MOST_LOOKS = 200_000  # pairs of pictures
MOST_ACROSS = 2_000  # pairs of pictures in two given splits
KEPT = 512  # pictures kept for the next look, 80 MB


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
        unseen: Candidates that were not looked at, because there were more than can be kept or looked at; at least.
    """

    links: Links
    across: Crossing
    unseen: int


@dataclass(frozen=True)
class Closest:
    """The windows of two images whose hashes are nearest.

    Attributes:
        slot_a: Number of the one image's, see `windows.placing`.
        slot_b: Number of the other's.
        mirrored: Whether one of them is mirrored.
        bits: Bits between the hashes.
    """

    slot_a: int
    slot_b: int
    mirrored: bool
    bits: int

    def __str__(self) -> str:
        """The evidence, in a few words."""
        windows = " on ".join(dict.fromkeys(WINDOWS[slot % len(WINDOWS)].name for slot in (self.slot_a, self.slot_b)))
        return f"{self.bits} of 64 bits differ, {windows}{', mirrored' * self.mirrored}"


def closest(hashes_a: bytes, hashes_b: bytes) -> Closest:
    """The windows of two images whose hashes are nearest, the first of them where several are, unmirrored first."""
    a, b = (np.frombuffer(hashes, dtype="<u8") for hashes in (hashes_a, hashes_b))
    whole_a, whole_b = np.arange(0, len(a), len(WINDOWS)), np.arange(0, len(b), len(WINDOWS))
    mirror = np.uint64(MIRROR)
    compared = (  # of equal distances min takes the first
        (a, b, 1, 1, False),
        (a, b[whole_b] ^ np.where(b[whole_b], mirror, 0).astype(np.uint64), 1, len(WINDOWS), True),
        (a[whole_a] ^ np.where(a[whole_a], mirror, 0).astype(np.uint64), b, len(WINDOWS), 1, True),
    )
    found = []
    for first, second, step_a, step_b, mirrored in compared:
        distance = np.bitwise_count(first[:, None] ^ second)
        distance[first == 0] = distance[:, second == 0] = 64
        one, other = divmod(int(distance.argmin()), len(second))
        found.append(Closest(one * step_a, other * step_b, mirrored, int(distance[one, other])))
    return min(found, key=lambda each: each.bits)


class _Known:
    """What other rules say of images, and without pictures what candidates say.

    Attributes:
        groups: Number of each image's group, (n,).
        alike: Number of the images that were found to show the same, (n,).
        kinds: Number of the images of one group and class, (n,).
    """

    def __init__(self, groups: Ints, labels: Ints, roles: Ints, grows: bool) -> None:
        self.groups, self.alike = groups, np.arange(len(groups))
        self.labels, self.roles, self.grows = labels, roles, grows
        self.kinds = self._kinds()

    def _kinds(self) -> NDArray[np.int32]:
        both = self.groups * (self.labels.max(initial=0) + 2) + self.labels + 1
        return np.unique(both, return_inverse=True)[1].astype(np.int32)

    def divided(self, a: Ints, b: Ints) -> Bools:
        """Which pairs lie in two given splits."""
        return differ(self.roles[a], self.roles[b])

    def contradict(self, a: Ints, b: Ints) -> Bools:
        """Which pairs have two labels."""
        return differ(self.labels[a], self.labels[b])

    def tells(self, a: Ints, b: Ints) -> Bools:
        """Which pairs join two groups, have two labels, or lie in two given splits."""
        labelled = self.contradict(a, b) & (self.alike[a] != self.alike[b])
        tells: Bools = (self.groups[a] != self.groups[b]) | labelled | self.divided(a, b)
        return tells

    def needed(self, a: Ints, b: Ints) -> Bools:
        """All pairs if each must be looked at, else those of a tree of links and those in two given splits."""
        if not self.grows:
            return np.ones(len(a), dtype=bool)
        divided = self.divided(a, b)
        to = tree(len(self.groups), a[~divided], b[~divided])
        needed: Bools = divided | (to[a] == b) | (to[b] == a)
        return needed

    def learn(self, a: Ints, b: Ints) -> None:
        """Take pairs for near-duplicates, unless they must be looked at."""
        if self.grows:
            divided = self.divided(a, b)
            a, b = a[~divided], b[~divided]
            self.alike, self.groups = joined_to(self.alike, a, b), joined_to(self.groups, a, b)
            self.kinds = self._kinds()


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
    known = _Known(groups, labels, roles, pictures is None)
    found = candidates(hashes, bits, known)
    seen: dict[tuple[int, int], str] = {}
    exact, unseen, same = found.unseen == 0, found.unseen, np.ones(len(found.a), dtype=bool)
    if pictures is not None:
        same, more, exact = _looked_at(hashes, found, known, pictures, seen)
        unseen, exact = unseen + more, exact and found.unseen == 0
    a, b, divided = found.a[same], found.b[same], known.divided(found.a[same], found.b[same])
    to = tree(len(hashes), a[~divided], b[~divided])

    def why(row: int) -> str:
        one, other = sorted((row, int(to[row])))
        return str(closest(hashes[one] or b"", hashes[other] or b"")) + seen.get((one, other), "")

    return NearDuplicates(
        links=Links(to, why),
        across=Crossing(int(np.count_nonzero(divided)), exact, np.stack([a, b, found.bits[same]], axis=1)[divided]),
        unseen=unseen,
    )


def _looked_at(
    hashes: Sequence[bytes | None],
    found: Candidates,
    known: _Known,
    pictures: Callable[[int], Image.Image],
    seen: dict[tuple[int, int], str],
) -> tuple[Bools, int, bool]:
    """Look at candidates, nearest first.

    Args:
        hashes: The hashes of each image's windows, (n,).
        found: The candidates, k of them.
        known: What other rules say of the images.
        pictures: Gives the image of a row.
        seen: Receives what was seen, by the two rows of those that show the same.

    Returns:
        Which candidates show the same, (k,), how many were not looked at, and whether all in two given splits were.
    """
    components, alike = known.groups.tolist(), known.alike.tolist()
    look = lru_cache(maxsize=KEPT)(lambda row: Picture(pictures(row)))
    same, looks, across, unseen, exact = np.zeros(len(found.a), dtype=bool), 0, 0, 0, True
    labelled, divided = known.contradict(found.a, found.b), known.divided(found.a, found.b)
    rows = zip(found.a.tolist(), found.b.tolist(), labelled.tolist(), divided.tolist(), strict=True)
    for number, (a, b, two_labels, two_splits) in enumerate(rows):
        first, second = _begin(components, a), _begin(components, b)
        one, other = _begin(alike, a), _begin(alike, b)
        if not two_splits and first == second and (not two_labels or one == other):
            continue
        if looks == MOST_LOOKS or (two_splits and across == MOST_ACROSS):
            unseen, exact = unseen + 1, exact and not two_splits
            continue
        looks, across = looks + 1, across + two_splits
        near = closest(hashes[a] or b"", hashes[b] or b"")
        agree = agreement(look(a), near.slot_a, look(b), near.slot_b, near.mirrored)
        if not agree.same:
            continue
        same[number], seen[a, b] = True, f"; {agree}"
        if not two_splits:
            components[max(first, second)] = min(first, second)
            alike[max(one, other)] = min(one, other)
    return same, unseen, exact


def _begin(components: list[int], row: int) -> int:
    """The row that a row's component begins with."""
    while components[row] != row:
        components[row] = components[components[row]]
        row = components[row]
    return row
