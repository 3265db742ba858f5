"""Roles that the owner of the data gave, in a split column or by names of folders and files, and what they rule out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from natix_lib.arrays import Ints
from natix_lib.contracts import ROLES
from natix_lib.errors import DataError


def given_roles(given_split: Sequence[Any], use_given: bool) -> Ints:
    """The role number that the source gave each image, -1 for none, (n,)."""
    numbers: dict[Any, int] = {role: number for number, role in enumerate(ROLES)}
    return np.array([numbers.get(role, -1) if use_given else -1 for role in given_split], dtype=np.int64)


def refuse_leak(rule: str, smallest: Ints, given: Ints, ids: list[str]) -> None:
    """Refuse images of two given splits that a rule joins, also by a chain through images of none."""
    known = np.flatnonzero(given >= 0)
    low, high = np.full(len(ids), len(ROLES)), np.full(len(ids), -1)
    np.minimum.at(low, smallest[known], given[known])
    np.maximum.at(high, smallest[known], given[known])
    mixed = np.flatnonzero(low < high)
    if len(mixed):
        members = known[smallest[known] == mixed[0]]
        a, b = members[0], members[given[members] != given[members[0]]][0]
        raise DataError(
            f"given splits leak: {len(mixed)} groups of images joined by {rule} lie in two splits, the first holds "
            f"{ids[a]} ({ROLES[given[a]]}) and {ids[b]} ({ROLES[given[b]]}); "
            "mend the split column or set split.use_given: false"
        )


def of_group(roles: Ints, group: Ints) -> Ints:
    """The role number of each group, of those of its images that have one, (G,)."""
    result = np.full(group.max() + 1, -1, dtype=np.int64)
    np.maximum.at(result, group, roles)
    return result
