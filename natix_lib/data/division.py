"""Columns of a data set -> who is in which split: whole groups, every class in every role, given splits kept.

Rows are taken by rising id, so that neither their order nor the shards' tells in anything. Synthetic images are left
out of VAL_CALIB and TEST: what is fitted and reported there must hold for images as cameras take them. They are left
out, rather than their whole groups kept in TRAIN, because a set with synthetic children of every photograph would have
no group left for TEST. They still hold their group together.

Near-duplicates in different given splits are counted, listed and told, not refused: perceptual hashes of small images
collide, and public benchmarks have such pairs. A drive, a place, an original or equal pixels in two is a leak.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_lib.arrays import Bools, Ints
from natix_lib.config import ROLE_RATIO_NAMES, Split
from natix_lib.contracts import ROLES
from natix_lib.data.duplicates import Crossing, near_duplicates, near_duplicates_across
from natix_lib.data.groups import Links, joined_by_all, same_source, same_value
from natix_lib.data.partition import REAL_ONLY, Groups, assign
from natix_lib.data.places import within_metres
from natix_lib.errors import DataError
from natix_lib.files import JsonDict

COLUMNS = (
    "id",
    "label",
    "group",
    "source_id",
    "given_split",
    "lat",
    "lon",
    "captured_at",
    "sha256",
    "phash",
    "is_synthetic",
)
NEAR = "near_duplicate"
SWITCHES = {
    "group": "data.columns.group",
    "source_id": "data.columns.source_id",
    "place": "split.gps_radius_m",
    "same_pixels": "the images themselves",
    NEAR: "split.near_duplicate_bits",
}
MOST_PAIRS = 1000  # listed in splits.json: more than a person looks at, and some 200 kB
GIANT = 0.5  # share of the images in one group, above which no ratio can be met


@dataclass(frozen=True)
class LargestGroup:
    """The group with the most images.

    Attributes:
        name: Smallest id of the images in it.
        images: How many it has.
        share: Share of all images, in (0, 1].
        rule: The rule that joins most of them, a key of SWITCHES; None where no rule joins any.
        links: Images that each rule joins to another one of the group.
        examples: The ids of the first two that `rule` joins; empty where none does.
    """

    name: str
    images: int
    share: float
    rule: str | None
    links: dict[str, int]
    examples: list[str]

    def __str__(self) -> str:
        """What a person is told when it is too large to divide by."""
        reason = ""
        if self.rule is not None:
            a, b = self.examples
            reason = f", most of them joined by {self.rule} ({SWITCHES[self.rule]}), first {a} and {b}"
        return f"one group holds {self.images} images, {self.share:.0%} of all{reason}"


@dataclass(frozen=True)
class Division:
    """Who is in which split, and why. Rows are images by rising id.

    Attributes:
        ids: Id of each image, no two alike, (n,).
        labels: Class number of each image, (n,).
        class_names: Name of each class number, (C,).
        synthetic: Which images no camera took, (n,).
        roles: Index into `contracts.ROLES` of each image, -1 for one left out, (n,).
        target: Share of each role that was asked for, (4,).
        groups: Smallest row of each image's group, (n,).
        rules: What each rule joins, by a key of SWITCHES.
        largest: The largest group.
        given: Index into `contracts.ROLES` that the data owner gave each image, -1 for none, (n,).
        across: Near-duplicates in two different given splits.
        warnings: What a reader must know of the division, sentences.
    """

    ids: list[str]
    labels: Ints
    class_names: list[str]
    synthetic: Bools
    roles: Ints
    target: NDArray[np.float64]
    groups: Ints
    rules: dict[str, Links]
    largest: LargestGroup
    given: Ints
    across: Crossing
    warnings: list[str]

    @property
    def group_count(self) -> int:
        return len(np.unique(self.groups))

    @property
    def left_out(self) -> list[str]:
        """The ids of the images in no role: synthetic ones of groups in `partition.REAL_ONLY`."""
        return [self.ids[row] for row in np.flatnonzero(self.roles < 0)]

    def document(self) -> JsonDict:
        """Everything that splits.json tells of it."""
        members = {role: np.flatnonzero(self.roles == number) for number, role in enumerate(ROLES)}
        photographs = np.count_nonzero(~self.synthetic)
        return {
            "class_names": self.class_names,
            "roles": {role: [self.ids[row] for row in rows] for role, rows in members.items()},
            "counts": {
                role: {name: int((self.labels[rows] == label).sum()) for label, name in enumerate(self.class_names)}
                for role, rows in members.items()
            },
            "ratios": {
                "target": dict(zip(ROLES, self.target.tolist(), strict=True)),
                "achieved": {role: int((~self.synthetic[rows]).sum()) / photographs for role, rows in members.items()},
            },
            "groups": {name: self.ids[first] for name, first in zip(self.ids, self.groups.tolist(), strict=True)},
            "left_out": dict.fromkeys(self.left_out, "synthetic"),
            "links": {rule: len(links.rows) for rule, links in self.rules.items()},
            "largest_group": asdict(self.largest),
            "near_duplicates_across_given_splits": self.across.count,
            "near_duplicates_counted_exactly": self.across.exact,
            "near_duplicate_pairs": [
                [self.ids[a], ROLES[self.given[a]], self.ids[b], ROLES[self.given[b]], bits]
                for a, b, bits in self.across.nearest.tolist()
            ],
            "warnings": self.warnings,
        }


def divide(columns: Mapping[str, Sequence[Any]], class_names: list[str], settings: Split) -> Division:
    """Divide images into TRAIN, VAL_SELECT, VAL_CALIB and TEST.

    Args:
        columns: The columns named by COLUMNS, each (n,), in any order of rows.
        class_names: Name of each class number.
        settings: Ratios, seed, and what makes images one group.

    Returns:
        The division, its rows by rising id.

    Raises:
        DataError: If a group crosses given splits, or a role cannot hold every class.
    """
    order = sorted(range(len(columns["id"])), key=columns["id"].__getitem__)
    sorted_columns = {name: [columns[name][row] for row in order] for name in COLUMNS}
    ids, hashes = sorted_columns["id"], sorted_columns["phash"]
    given = _given_roles(sorted_columns["given_split"], settings.use_given)
    rules = {
        "group": Links(same_value(sorted_columns["group"]), lambda row: str(sorted_columns["group"][row])),
        "source_id": Links(
            same_source(ids, sorted_columns["source_id"]), lambda row: str(sorted_columns["source_id"][row])
        ),
        "place": Links(
            within_metres(
                np.array(sorted_columns["lat"], dtype=np.float64),
                np.array(sorted_columns["lon"], dtype=np.float64),
                settings.gps_radius_m,
            ),
            lambda row: f"within {settings.gps_radius_m:g} m",
        ),
        "same_pixels": Links(same_value(sorted_columns["sha256"]), lambda row: "equal pixels"),
    }
    for rule, links in rules.items():
        _refuse_leak(rule, links.smallest, given, ids)
    bits = settings.near_duplicate_bits
    rules[NEAR] = Links(_near_within_splits(hashes, given, bits), lambda row: f"at most {bits} of 64 bits differ")
    across = near_duplicates_across(hashes, given, settings.near_duplicate_bits, MOST_PAIRS)
    smallest = joined_by_all([links.to for links in rules.values()])
    _refuse_leak("all rules together", smallest, given, ids)
    largest = _largest(smallest, rules, ids)
    labels = np.array(sorted_columns["label"], dtype=np.int64)
    synthetic = np.array([bool(value) for value in sorted_columns["is_synthetic"]])
    target = np.array([getattr(settings.ratios, name) for name in ROLE_RATIO_NAMES])
    groups, group = _groups(smallest, labels, synthetic, given, ids, len(class_names))
    try:
        roles = assign(groups, target, settings.min_per_class, settings.seed, class_names)[group]
    except DataError as error:
        raise DataError(f"{error}; {largest}" if largest.share > GIANT else str(error)) from error
    left_out = synthetic & np.isin(roles, [ROLES.index(role) for role in REAL_ONLY])
    roles[left_out] = -1
    untold = sum(
        time is not None and drive is None
        for time, drive in zip(sorted_columns["captured_at"], sorted_columns["group"], strict=True)
    )
    return Division(
        ids=ids,
        labels=labels,
        class_names=class_names,
        synthetic=synthetic,
        roles=roles,
        target=target,
        groups=smallest,
        rules=rules,
        largest=largest,
        given=given,
        across=across,
        warnings=_warnings(across, settings.near_duplicate_bits, largest, untold, int(left_out.sum())),
    )


def _given_roles(given_split: Sequence[Any], use_given: bool) -> Ints:
    """The role number that the source gave each image, -1 for none, (n,)."""
    numbers: dict[Any, int] = {role: number for number, role in enumerate(ROLES)}
    return np.array([numbers.get(role, -1) if use_given else -1 for role in given_split], dtype=np.int64)


def _near_within_splits(hashes: list[int | None], given: Ints, bits: int) -> Ints:
    """Near-duplicates, each given split with the images of none; the smallest row that each is joined to, (n,)."""
    parts = [np.arange(len(hashes))]
    for role in np.unique(given[given >= 0]).tolist() or [-1]:
        rows = np.flatnonzero((given == role) | (given < 0))
        part = np.arange(len(hashes))
        part[rows] = rows[near_duplicates([hashes[row] for row in rows], bits)]
        parts.append(part)
    return joined_by_all(parts)


def _refuse_leak(rule: str, smallest: Ints, given: Ints, ids: list[str]) -> None:
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


def _largest(smallest: Ints, rules: Mapping[str, Links], ids: list[str]) -> LargestGroup:
    first = int(np.bincount(smallest).argmax())
    members = np.flatnonzero(smallest == first)
    links = {name: members[rule.to[members] != members] for name, rule in rules.items()}
    rule = max(links, key=lambda name: len(links[name]))
    examples = (
        [ids[row] for row in sorted((rules[rule].to[links[rule][0]], links[rule][0]))] if len(links[rule]) else []
    )
    return LargestGroup(
        name=ids[first],
        images=len(members),
        share=len(members) / len(ids),
        rule=rule if examples else None,
        links={name: len(rows) for name, rows in links.items()},
        examples=examples,
    )


def _warnings(across: Crossing, bits: int, largest: LargestGroup, untold: int, left_out: int) -> list[str]:
    """What a reader must know of near-duplicates in two splits, of a group of most images, of times and left out."""
    result = []
    if across.count:
        result.append(
            f"{'' if across.exact else 'At least '}{across.count} pairs of images in different given splits look alike "
            f"(at most {bits} of 64 bits differ), so figures on TEST can be too good: "
            f"near_duplicate_pairs in splits.json lists {len(across.nearest)} of them, nearest first."
        )
    if largest.share > GIANT:
        result.append(f"O{str(largest)[1:]}.")
    if untold:
        result.append(
            f"{untold} images have a captured_at and no group: times join no frames, so frames of one drive can lie in "
            "two splits unless they look alike."
        )
    if left_out:
        result.append(f"{left_out} synthetic images of groups in {' and '.join(REAL_ONLY)} are in no split.")
    return result


def _groups(
    smallest: Ints, labels: Ints, synthetic: Bools, given: Ints, ids: list[str], classes: int
) -> tuple[Groups, Ints]:
    """The groups to assign, and the number of each image's group among them, (n,)."""
    first, group = np.unique(smallest, return_inverse=True)
    counts = np.zeros((2, len(first), classes), dtype=np.int64)
    np.add.at(counts, (synthetic.astype(np.int64), group, labels), 1)
    given_group = np.full(len(first), -1, dtype=np.int64)
    np.maximum.at(given_group, group, given)
    return Groups([ids[row] for row in first], counts[0], counts[1], given_group), group
