"""Whole groups to split roles, close to the target ratios in every class.

Greedy by falling size, each group to the role where it brings class counts nearest to their targets, then moves of
single groups while any of them helps, from several seeded orders; the best is kept. Stratified group folds were
rejected: they know equal folds only, and with city-sized groups their class shares ran from 65 to 95 %.
"""

import numpy as np
from numpy.typing import NDArray

from natix_lib.contracts import ROLES, TRAIN
from natix_lib.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
RESTARTS, PASSES = 8, 6
MISSING = 1e6  # cost of an image that a class lacks to its minimum in a role


def assign(counts: Ints, ratios: Floats, given: Ints, min_per_class: int, seed: int, class_names: list[str]) -> Ints:
    """A role for each group.

    Args:
        counts: Images of each group and class, (G, C).
        ratios: Target share of each of the four roles, summing to 1, (4,).
        given: Role number that the data owner gave each group, -1 for none, (G,). Roles that were given are kept as
            they are; a role that was given to no group is drawn from groups of none and of TRAIN.
        min_per_class: Images of every class that every role must have.
        seed: Of ties and orders.
        class_names: For messages.

    Returns:
        Role number of each group, an index into `contracts.ROLES`, (G,).

    Raises:
        DataError: If a role cannot hold every class, naming both.
    """
    train = ROLES.index(TRAIN)
    roles = given.copy()
    present = np.bincount(given[given >= 0], minlength=len(ROLES)) > 0
    free = given < 0
    if present.any():
        drawn = [role for role in range(len(ROLES)) if not present[role] or role == train]
        if len(drawn) > 1:
            free |= given == train
    else:
        drawn = list(range(len(ROLES)))
    if free.any():
        _require_groups(counts[free], len(drawn), class_names)
        share = ratios[drawn] / ratios[drawn].sum()
        roles[free] = np.asarray(drawn)[_best(counts[free], share, min_per_class, seed)]
    _require_classes(counts, roles, min_per_class, class_names)
    return roles


def _require_groups(counts: Ints, roles: int, class_names: list[str]) -> None:
    groups = (counts > 0).sum(axis=0)
    for c in np.flatnonzero(groups < roles):
        raise DataError(
            f"class {class_names[c]} has {groups[c]} groups, {roles} splits need at least one each: "
            "groups are kept whole so that nothing leaks"
        )


def _require_classes(counts: Ints, roles: Ints, min_per_class: int, class_names: list[str]) -> None:
    for number, role in enumerate(ROLES):
        held = counts[roles == number].sum(axis=0)
        if not held.any():
            raise DataError(f"split {role} holds no image")
        if (held > 0).sum() == 1:
            raise DataError(f"split {role} holds one class only: {class_names[int(held.argmax())]}")
        for c in np.flatnonzero(held < min_per_class):
            raise DataError(
                f"split {role} holds {held[c]} images of class {class_names[c]}, split.min_per_class is {min_per_class}"
            )


def _best(counts: Ints, share: Floats, least: int, seed: int) -> Ints:
    """The cheapest assignment of several seeded ones, (G,), roles numbered as in `share`."""
    target = share[:, None] * counts.sum(axis=0)
    best, lowest = np.zeros(len(counts), dtype=np.int64), np.inf
    for restart in range(RESTARTS if len(counts) <= 5000 else 1):
        generator = np.random.default_rng((seed, restart))
        roles, cost = _one(counts, target, least, generator)
        if cost < lowest:
            best, lowest = roles, cost
    return best


def _one(counts: Ints, target: Floats, least: int, generator: np.random.Generator) -> tuple[Ints, float]:
    order = generator.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    held = np.zeros_like(target)
    roles = np.full(len(counts), -1, dtype=np.int64)
    for _ in range(1 + PASSES):
        moved = False
        for group in order:
            own = counts[group]
            before = roles[group]
            if before >= 0:
                held[before] -= own
            gain = _cost(held + own, target, least) - _cost(held, target, least)
            after = int(gain.argmin())
            if before >= 0 and gain[before] <= gain[after] + 1e-12:
                after = int(before)
            held[after] += own
            moved |= after != before
            roles[group] = after
        if not moved:
            break
    return roles, float(_cost(held, target, least).sum())


def _cost(held: Floats, target: Floats, least: int) -> Floats:
    """Cost of each role: squared miss of its targets, and a penalty for classes below their minimum."""
    miss = (held - target) ** 2 / np.maximum(target, 1e-9)
    lacking = np.maximum(least - held, 0.0)
    result: Floats = (miss + MISSING * lacking).sum(axis=1)
    return result
