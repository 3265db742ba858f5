"""Whole groups to split roles, close to the target ratios in every class.

What a division costs is the sum, over roles and classes, of how far the role's share of the class is from its ratio:
what a person reads in the report, and every class alike, however rare. Squared misses relative to the target, as
before, looked at large classes alone.

Greedy from the large groups to the small ones, each group to the role where it brings class counts nearest to their
targets, then moves and swaps of groups while any of them helps, from several starts. Few groups with many classes are
the hard case: where few groups miss by what a person could see, an exact solver is asked too, with a limit on its
search that no machine's speed is part of, and the better answer is taken. Where that still lacks images that a split
must have, the solver looks for a division that lacks none, and only what it shows to be impossible is refused.
Stratified group folds were rejected: they know equal folds only, and with city-sized groups their class shares ran from
65 to 95 %.

Where tags tell a source, a camera or a city, a role that lacks one of its values gets it, if that costs no more than
what nobody would see (`variety.py`).

Neither the order nor the numbers of groups and classes matter: they are taken by name, and what is drawn is drawn by a
hash of seed and name. The seed decides where the searches start: another seed gives another division, about as good,
unless one is clearly better than all others. Images that are not synthetic are what ratios are about; a synthetic one
counts for what TRAIN and VAL_SELECT must have.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from natix_lib.arrays import Floats, Ints
from natix_lib.contracts import ROLES, TEST, TRAIN, VAL_CALIB, VAL_SELECT
from natix_lib.data.exact import SECONDS, fewest_lacking, nearest
from natix_lib.data.search import MOST_SEARCHED, Search
from natix_lib.data.variety import Variety, varied
from natix_lib.errors import DataError

STARTS = 8
MOST_SOLVED = 5000  # groups x roles x classes that the exact solver is asked to divide; it takes up to some seconds
NEAR_ENOUGH = 0.004  # mean miss of a role's share, below which it is not asked: nobody would see the difference
REAL_ONLY = (VAL_CALIB, TEST)  # what is fitted and reported on them must hold for images as cameras take them


@dataclass(frozen=True)
class Groups:
    """Groups to divide.

    Attributes:
        names: Unique, one for each group.
        counts: Images of each group and class that are not synthetic, (G, C).
        synthetic: Synthetic images of each group and class, (G, C).
        given: Role number that the data owner gave each group, -1 for none, (G,).
        kept: Role number that each group has from an earlier division, -1 for none, (G,).
        values: Images of each group with each value of the tags that roles shall have in common, (G, V); None for none.
    """

    names: list[str]
    counts: Ints
    synthetic: Ints
    given: Ints
    kept: Ints
    values: Ints | None = None


def assign(groups: Groups, ratios: Floats, min_per_class: int, seed: int, class_names: list[str]) -> Ints:
    """A role for each group.

    Roles that the data owner gave are kept; a role that was given to no group is drawn from groups of none and of
    TRAIN. Roles of an earlier division are kept too, and what the others get makes up for what these miss. A group of
    synthetic images alone goes to TRAIN.

    Args:
        groups: The groups to divide, in any order.
        ratios: Target share of each of the four roles, summing to 1, (4,); a role with 0 is given to no group that has
            images to count.
        min_per_class: Images of every class that every role must have, not counting synthetic ones in VAL_CALIB and
            TEST.
        seed: Decides where the searches start.
        class_names: Name of each class, for messages.

    Returns:
        Role number of each group, an index into `contracts.ROLES`, (G,).

    Raises:
        DataError: If a role cannot hold every class, naming both, or no division was found in time.
    """
    order = np.array(sorted(range(len(groups.names)), key=groups.names.__getitem__), dtype=np.int64)
    names = [groups.names[group] for group in order]
    by_name = np.ix_(order, np.argsort(class_names, kind="stable"))
    class_names = sorted(class_names)
    counts, synthetic, given, kept = (
        groups.counts[by_name],
        groups.synthetic[by_name],
        groups.given[order],
        groups.kept[order],
    )
    train = ROLES.index(TRAIN)
    present = np.bincount(given[given >= 0], minlength=len(ROLES)) > 0
    drawn = [
        role for role in range(len(ROLES)) if ratios[role] and (not present.any() or not present[role] or role == train)
    ]
    free = (given < 0) | ((given == train) & (len(drawn) > 1))
    roles = np.where(kept >= 0, kept, np.where(free, train, given))
    free &= (kept < 0) & counts.any(axis=1)
    if len(drawn) > 1 and free.any():
        weights = np.concatenate([counts, synthetic], axis=1)
        fixed = np.stack([weights[~free & (roles == role)].sum(axis=0) for role in drawn])
        share = ratios[drawn] / ratios[drawn].sum()
        search = Search(weights[free], fixed, share, min_per_class, [ROLES[role] not in REAL_ONLY for role in drawn])
        starts = _draws([name for name, is_free in zip(names, free, strict=True) if is_free], seed)
        found = _divide(search, starts, [ROLES[role] for role in drawn], class_names)
        if groups.values is not None and groups.values.any():
            values = groups.values[order]
            held = np.stack([(values[~free & (roles == role)] > 0).sum(axis=0) for role in drawn])
            first = drawn.index(ROLES.index(VAL_SELECT)) if ROLES.index(VAL_SELECT) in drawn else 0
            allowed = 1e-9 + max(search.total(found), NEAR_ENOUGH * search.target.size)
            variety = Variety(values[free] > 0, held, first, drawn.index(train) if train in drawn else None)
            found = varied(search, found, variety, starts[:, 0], allowed)
        roles[free] = np.asarray(drawn)[found]
    asked = [role for role in range(len(ROLES)) if ratios[role]]
    _require_classes(counts, synthetic, roles, asked, min_per_class, class_names)
    result = np.empty(len(order), dtype=np.int64)
    result[order] = roles
    return result


def _require_classes(
    counts: Ints, synthetic: Ints, roles: Ints, asked: list[int], least: int, class_names: list[str]
) -> None:
    for number in asked:
        role = ROLES[number]
        held = counts[roles == number].sum(axis=0)
        if role not in REAL_ONLY:
            held = held + synthetic[roles == number].sum(axis=0)
        but = " that are not synthetic" if role in REAL_ONLY and synthetic[roles == number].any() else ""
        if not held.any():
            raise DataError(f"split {role} holds no image{but and 's'}{but}")
        if (held > 0).sum() == 1:
            raise DataError(f"split {role} holds one class only: {class_names[int(held.argmax())]}")
        for c in np.flatnonzero(held < least):
            raise DataError(
                f"split {role} holds {held[c]} images of class {class_names[c]}{but}, split.min_per_class is {least}"
            )


def _divide(search: Search, draws: Floats, roles: list[str], class_names: list[str]) -> Ints:
    """The cheapest division of several starts, (G,), roles numbered as in `roles`."""
    _require_groups(search, roles, class_names)
    divisions = [search.run(draws[:, start]) for start in range(max(1, min(STARTS, MOST_SEARCHED // len(draws))))]
    best = min(divisions, key=search.total)
    if search.total(best) > NEAR_ENOUGH * search.target.size and search.brought().size <= MOST_SOLVED:
        solved = nearest(search.question(), draws[:, 0])
        best = best if solved is None else min(best, search.improved(solved, draws[:, 0]), key=search.total)
    if not search.lacking(best).any():
        return best
    fewest = fewest_lacking(search.brought(), search.held_at_least(), search.least)
    if fewest.roles is not None and not fewest.lacking.any():
        return search.improved(fewest.roles, draws[:, 0])
    lacking = search.lacking(best) if fewest.roles is None else fewest.lacking
    role, c = np.unravel_index(int(lacking.argmax()), lacking.shape)
    of_class = search.weights[:, [c, len(class_names) + c]].sum(axis=1)
    why = "shown by an exact solver" if fewest.proven else f"none was found in {SECONDS:g} s, there may be one"
    raise DataError(
        f"no division of {len(draws)} groups gives each of {len(roles)} splits {search.least} images of every class "
        f"({why}): the best lacks {lacking[role, c]} of class {class_names[c]} in {roles[role]}; the class has "
        f"{of_class.sum()} images in {np.count_nonzero(of_class)} groups; add groups of it"
        + (" or lower split.min_per_class" if search.least > 1 else "")
    )


def _require_groups(search: Search, roles: list[str], class_names: list[str]) -> None:
    groups = (search.brought() > 0).any(axis=0).sum(axis=0)
    enough = search.held_at_least() >= search.least
    for c in np.flatnonzero(groups + enough.sum(axis=0) < len(roles)):
        lacking = [role for role, has in zip(roles, enough[:, c], strict=True) if not has]
        raise DataError(
            f"class {class_names[c]} has {groups[c]} groups, {len(lacking)} splits need at least one each "
            f"({', '.join(lacking)}): groups are kept whole so that nothing leaks; label "
            f"{len(lacking) - groups[c]} more groups of it, such as drives, or merge it with another class"
        )


def _draws(names: list[str], seed: int) -> Floats:
    """STARTS numbers in [0, 1) for each group, of its name and the seed alone, (G, STARTS)."""
    digests = b"".join(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8 * STARTS).digest() for name in names)
    return np.frombuffer(digests, dtype=">u8").reshape(-1, STARTS).astype(np.float64) / 2.0**64
