"""Roles that hold every source: the values of tags that a division leaves a role without, and how it gets them.

A VAL_SELECT of one source alone chooses the epoch that does best there, and a TEST without a source says nothing of
it. Ratios of classes do not see that: where one source has few large groups, all of them may fill one role. So a
division is looked at after it is found. A role that lacks a value of a tag is given one of its groups, the others are
rearranged around it by the same search, and the cheapest such division is taken if it lacks fewer values and its shares
are as near as before, or so near that nobody would see the difference. A division that lacks none stays as it is, and
TRAIN never loses a value: what is not learnt need not be asked about.

Values as classes of the ratios were rejected: each would pull at the shares of the labels, which are what is promised.
Only tags of few values count, such as a source, a camera or a city, and only their values that are common: what one
image in a hundred has, chance alone keeps out of a small role.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from natix_lib.arrays import Bools, Floats, Ints

MOST_VALUES = 8  # of a tag; a longer one is a name, a time or a drive
LEAST_SHARE = 0.05  # of the images, that a value must have to be looked for
CANDIDATES = 6  # groups that are tried for a role that lacks a value, from the smallest to the largest
TRIES = 48  # in all: each is a search of its own
MOST_MOVED = 2000  # groups that a try may move


class Divided(Protocol):
    """What is asked of `search.Search`."""

    @property
    def weights(self) -> Ints: ...
    def total(self, roles: Ints) -> float: ...
    def lacking(self, roles: Ints) -> Ints: ...
    def rearranged(self, roles: Ints, order: Ints) -> Ints: ...


@dataclass(frozen=True)
class Variety:
    """Which groups have which values of tags.

    Attributes:
        has: Whether a group has a value, (G, V).
        held: Groups with each value that each role has already, beside those, (R, V).
        first: The role whose lack counts twice, and which is looked at first.
        train: The role that keeps what it has, None where it takes no part.
    """

    has: Bools
    held: Ints
    first: int
    train: int | None

    def groups(self, roles: Ints) -> Ints:
        """Groups with each value in each role, (R, V)."""
        result: Ints = self.held.copy()
        for role in range(len(result)):
            result[role] += self.has[roles == role].sum(axis=0)
        return result

    def lack(self, roles: Ints) -> int:
        """How many values roles lack; those of the first one count twice."""
        lacks = self.groups(roles) == 0
        return int(lacks.sum() + lacks[self.first].sum())

    def spared(self, roles: Ints, trial: Ints) -> bool:
        """Whether TRAIN has in `trial` every value that it has in `roles`."""
        if self.train is None:
            return True
        before, after = self.groups(roles)[self.train], self.groups(trial)[self.train]
        return not bool(((before > 0) & (after == 0)).any())


def common_values(tags: Mapping[str, Sequence[str | None]], counted: Bools, group: Ints) -> Ints:
    """Images of each group with each value of tags that has enough of them, in the order of their names.

    Args:
        tags: Values of each tag, (n,), None for none.
        counted: Which images count, (n,).
        group: Number of each image's group, (n,).

    Returns:
        Numbers of images, (G, V).
    """
    columns = []
    groups = int(group.max()) + 1 if len(group) else 0
    for name in sorted(tags):
        values = np.array(["" if value is None else f"={value}" for value in tags[name]])
        named = sorted({*values[counted].tolist()} - {""})
        if not 2 <= len(named) <= MOST_VALUES:
            continue
        for value in named:
            rows = counted & (values == value)
            if rows.sum() >= LEAST_SHARE * counted.sum():
                columns.append(np.bincount(group[rows], minlength=groups))
    return np.stack(columns, axis=1).astype(np.int64) if columns else np.zeros((groups, 0), dtype=np.int64)


def varied(search: Divided, roles: Ints, variety: Variety, draws: Floats, allowed: float) -> Ints:
    """A division that lacks fewer values, or the same.

    Args:
        search: What divisions cost.
        roles: A division, (G,).
        variety: Which groups have which values.
        draws: A number in [0, 1) of each group, by which groups take turns, (G,).
        allowed: What the division may cost.

    Returns:
        A division that costs no more than `allowed`, and lacks no more images than `roles`, (G,).
    """
    tries, missing = TRIES, search.lacking(roles).sum()
    order = np.argsort(draws, kind="stable")[:MOST_MOVED]
    sizes = search.weights.sum(axis=1)
    numbers = range(len(variety.held))
    for role in sorted(numbers, key=lambda number: number != variety.first):
        for value in range(variety.has.shape[1]):
            groups = variety.groups(roles)
            if groups[role, value]:
                continue
            alone = (variety.has & (groups[roles] == 1)).any(axis=1)  # another role would lack something without it
            able = np.flatnonzero(
                variety.has[:, value] & (~alone | ((role == variety.first) & (roles != variety.train)))
            )
            able = able[np.lexsort((draws[able], sizes[able]))]
            places = np.unique(np.linspace(0, len(able) - 1, min(CANDIDATES, len(able))).round().astype(np.int64))
            picked = able[places]
            best, cost = roles, allowed
            for group in picked[:tries].tolist():
                tries -= 1
                trial = roles.copy()
                trial[group] = role
                trial = search.rearranged(trial, order[~alone[order] & (order != group)])
                good = variety.lack(trial) < variety.lack(roles) and search.lacking(trial).sum() <= missing
                if good and variety.spared(roles, trial) and search.total(trial) <= cost:
                    best, cost = trial, search.total(trial)
            roles = best
    return roles
