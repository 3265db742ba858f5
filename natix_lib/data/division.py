"""Columns of a data set -> who is in which split: whole groups, every class in every role, given splits kept.

Rows are taken by rising id, so that neither their order nor the shards' tells in anything, and groups by the smallest
pixel hash in them, so that neither the names nor the layout tells in who goes where. Synthetic images are left
out of VAL_CALIB and TEST: what is fitted and reported there must hold for images as cameras take them. They are left
out, rather than their whole groups kept in TRAIN, because a set with synthetic children of every photograph would have
no group left for TEST. They still hold their group together.

Images without a label are joined to others by every rule, and count for no ratio and no minimum. Those of a group in
TRAIN, or of one without any label, go to adapt; a backbone that has adapted to a drive of TEST is measured on what it
knows, so those of the other roles' groups are left out, and so are those that the owner gave another role than TRAIN
and those that show the same as an image in another given split.

Near-duplicates in different given splits are counted, listed and told, not refused: public benchmarks have such pairs.
So are drives by time, names and looks. A given drive, a place, an original or equal pixels in two is a leak.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natix_lib.arrays import Bools, Ints
from natix_lib.config import ROLE_RATIO_NAMES, Split
from natix_lib.contracts import ROLES, TRAIN, UNLABELLED
from natix_lib.data.conflicts import in_conflict
from natix_lib.data.drives import find_drives
from natix_lib.data.duplicates import Crossing, NearDuplicates, near_duplicates
from natix_lib.data.fingerprint import smallest_of
from natix_lib.data.given import given_roles, of_group, refuse_leak
from natix_lib.data.groups import Links, joined_by_all, same_source, same_value
from natix_lib.data.partition import REAL_ONLY, Groups, assign
from natix_lib.data.places import metres_between, within_metres
from natix_lib.data.previous import NONE, REASON, Kept, Previous, keep_roles
from natix_lib.data.rules import GIANT, NEAR, SAME, LargestGroup, largest_group
from natix_lib.data.trained import TRAINED, Known, Trained, looks_of, recognised
from natix_lib.data.variety import common_values
from natix_lib.documents import PIXEL_DIGITS, held_name
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
    "hashes",
    "is_synthetic",
)
CONFLICT = "conflicting label"  # why an image is left out, in splits.json
MOST_PAIRS = 1000  # listed in splits.json: more than a person looks at, and some 200 kB


@dataclass(frozen=True)
class Division:
    """Who is in which split, and why. Rows are images by rising id.

    Attributes:
        ids: Id of each image, no two alike, (n,).
        pixels: SHA-256 of each image's pixels, (n,).
        labels: Class number of each image, -1 for none, (n,).
        class_names: Name of each class number, (C,).
        synthetic: Which images no camera took, (n,).
        roles: Index into `contracts.ROLES` of each image, -1 for one without a label or left out, (n,).
        for_adapt: Which images have no label and are for adapt, (n,).
        target: Share of each role that was asked for, (4,).
        groups: Smallest row of each image's group, (n,).
        rules: What each rule joins, by a key of SWITCHES.
        largest: The largest group.
        given: Index into `contracts.ROLES` that the data owner gave each image, -1 for none, (n,).
        across: Near-duplicates in two different given splits.
        held: Index into `contracts.ROLES` of the role of its group, of each image that is left out for another reason
            than `split.previous`, -1 for others, (n,).
        left_out: Why an image is in no role, by its id: "synthetic", "unlabelled", CONFLICT, `previous.REASON`, or
            `trained.TRAINED`.
        kept: What an earlier division says of the images; None where none was named.
        looks: The hash of each image's whole picture, 0 for none, (n,).
        trained: What a model was fitted on, and which of the images that is; None where no model was named.
        warnings: What a reader must know of the division, sentences.
    """

    ids: list[str]
    pixels: list[str]
    labels: Ints
    class_names: list[str]
    synthetic: Bools
    roles: Ints
    for_adapt: Bools
    held: Ints
    target: NDArray[np.float64]
    groups: Ints
    rules: dict[str, Links]
    largest: LargestGroup
    given: Ints
    across: Crossing
    left_out: dict[str, str]
    kept: Kept | None
    looks: NDArray[np.uint64]
    trained: tuple[Trained, Known] | None
    warnings: list[str]

    @property
    def group_count(self) -> int:
        return len(np.unique(self.groups))

    def document(self) -> JsonDict:
        """Everything that splits.json tells of it."""
        members = {role: np.flatnonzero(self.roles == number) for number, role in enumerate(ROLES)}
        photographs = np.count_nonzero(~self.synthetic & (self.roles >= 0))
        held = {role: np.flatnonzero(self.held == number) for number, role in enumerate(ROLES)}
        kept_out = [row for row, name in enumerate(self.ids) if self.left_out.get(name) == REASON]
        known = members | {UNLABELLED: np.flatnonzero(self.for_adapt), REASON: np.array(kept_out, dtype=np.int64)}
        known |= {held_name(role): rows for role, rows in held.items()}
        return {
            "class_names": self.class_names,
            "roles": {role: [self.ids[row] for row in rows] for role, rows in members.items()},
            "unlabelled": [self.ids[row] for row in np.flatnonzero(self.for_adapt)],
            "counts": {
                role: {name: int((self.labels[rows] == label).sum()) for label, name in enumerate(self.class_names)}
                for role, rows in members.items()
            },
            "ratios": {
                "target": dict(zip(ROLES, self.target.tolist(), strict=True)),
                "achieved": {role: int((~self.synthetic[rows]).sum()) / photographs for role, rows in members.items()},
            },
            "groups": {name: self.ids[first] for name, first in zip(self.ids, self.groups.tolist(), strict=True)},
            "left_out": self.left_out,
            "held": {role: [self.ids[row] for row in rows] for role, rows in held.items()},
            "pixels": {name: "".join(self.pixels[row][:PIXEL_DIGITS] for row in rows) for name, rows in known.items()},
            "looks": {name: "".join(f"{self.looks[row]:016x}" for row in rows) for name, rows in known.items()},
            "trained": None if self.trained is None else self.trained[0].document(),
            "previous": None if self.kept is None else self.kept.document(),
            "links": {rule: len(links.rows) for rule, links in self.rules.items()},
            "largest_group": asdict(self.largest),
            "near_duplicates_across_given_splits": self.across.count,
            "near_duplicates_counted_exactly": self.across.exact,
            "near_duplicate_pairs": [
                [self.ids[a], ROLES[self.given[a]], self.ids[b], ROLES[self.given[b]], bits]
                for a, b, bits in self.across.nearest[:MOST_PAIRS].tolist()
            ],
            "warnings": self.warnings,
        }


def divide(
    columns: Mapping[str, Sequence[Any]],
    class_names: list[str],
    settings: Split,
    previous: Previous | None = None,
    pictures: Callable[[int], Image.Image] | None = None,
    trained: Trained | None = None,
    tags: Mapping[str, Sequence[str | None]] | None = None,
) -> Division:
    """Divide images into TRAIN, VAL_SELECT, VAL_CALIB and TEST.

    Args:
        columns: The columns named by COLUMNS, each (n,), in any order of rows; a label is None where there is none.
        class_names: Name of each class number.
        settings: Ratios, seed, and what makes images one group.
        previous: An earlier division, whose images keep their roles.
        pictures: Gives the image of a row of the columns, for what looks alike by its hashes; without it that counts
            as near-duplicates unseen.
        trained: What a model was fitted on; whole groups that hold such an image are left out.
        tags: Tags by name, each with the value of each row of the columns, (n,); their commonest values are in every
            role where groups allow it and shares come as near.

    Returns:
        The division, its rows by rising id.

    Raises:
        DataError: If a group crosses given splits, a role cannot hold every class, or `previous` is of other images or
            contradicts given splits.
    """
    order = sorted(range(len(columns["id"])), key=columns["id"].__getitem__)
    sorted_columns = {name: [columns[name][row] for row in order] for name in COLUMNS}
    sorted_columns["label"] = [NONE if label is None else label for label in sorted_columns["label"]]
    ids = sorted_columns["id"]
    given = given_roles(sorted_columns["given_split"], settings.use_given)
    lat, lon = (np.array(sorted_columns[name], dtype=np.float64) for name in ("lat", "lon"))
    place = within_metres(lat, lon, settings.gps_radius_m)
    rules = {
        "group": Links(same_value(sorted_columns["group"]), lambda row: str(sorted_columns["group"][row])),
        "source_id": same_source(ids, sorted_columns["source_id"]),
        "place": Links(place, lambda row: f"{metres_between(lat, lon, [row], place[[row]])[0]:.0f} m apart"),
        SAME: Links(same_value(sorted_columns["sha256"]), lambda row: "equal pixels"),
    }
    for rule, links in rules.items():
        try:
            refuse_leak(rule, links.smallest, given, ids)
        except DataError as error:
            raise DataError(". ".join([str(error), *links.warnings])) from error
    labels = np.array(sorted_columns["label"], dtype=np.int64)
    drives = find_drives(sorted_columns, given, settings, class_names)
    rules |= drives.rules
    near = near_duplicates(
        sorted_columns["hashes"],
        joined_by_all([links.to for links in rules.values()]),
        labels,
        given,
        settings.near_duplicate_bits,
        None if pictures is None else lambda row: pictures(order[row]),
    )
    rules[NEAR] = near.links
    smallest = joined_by_all([links.to for links in rules.values()])
    refuse_leak("all rules together", smallest, given, ids)
    labelled = labels != NONE
    largest = largest_group(smallest, labelled, rules, ids)
    synthetic = np.array([bool(value) for value in sorted_columns["is_synthetic"]])
    target = np.array([getattr(settings.ratios, name) for name in ROLE_RATIO_NAMES])
    pixels = sorted_columns["sha256"]
    kept = None if previous is None else keep_roles(previous, ids, pixels, smallest, given)
    kept_out = np.zeros(len(ids), dtype=bool) if kept is None else kept.left_out
    looks = looks_of(sorted_columns["hashes"])
    known = None if trained is None else recognised(trained, pixels, looks, smallest, settings.near_duplicate_bits)
    seen = np.zeros(len(ids), dtype=bool) if known is None else known.left_out & ~kept_out
    contradict = in_conflict(rules, labels) & (settings.conflicting_labels == "drop") & ~seen
    usable = ~(kept_out | contradict | seen)
    fixed = np.full(len(ids), NONE) if kept is None else kept.roles
    first, group = np.unique(smallest, return_inverse=True)
    counts = np.zeros((2, len(first), len(class_names)), dtype=np.int64)
    counted = usable & labelled
    np.add.at(counts, (synthetic[counted].astype(np.int64), group[counted], labels[counted]), 1)
    names = smallest_of(pixels, smallest)
    owner = of_group(given, group)
    without = np.bincount(group, labelled) == 0  # groups without a label, which are no part of any role
    groups = Groups(
        [names[row] for row in first.tolist()],
        counts[0],
        counts[1],
        np.where(without, NONE, owner),
        of_group(fixed, group),
        common_values(
            {name: [values[row] for row in order] for name, values in (tags or {}).items()}, counted & ~synthetic, group
        ),
    )
    if known is not None and not counts.any():
        raise DataError(f"no image is left to divide: {known}")
    try:
        assigned = assign(groups, target, settings.min_per_class, settings.seed, class_names)
    except DataError as error:
        fixes = "" if kept is None else f"; split.previous keeps {kept.images} images where they are"
        fixes += f"; {known}" if known is not None and known.left_out.any() else ""
        raise DataError(f"{error}{fixes}" + (f"; {largest}" if largest.share > GIANT else "")) from error
    roles = np.where(without & (owner >= 0) & (groups.kept < 0), owner, assigned)[group]
    for_adapt = ~labelled & usable & (roles == ROLES.index(TRAIN))
    for_adapt &= ~np.isin(smallest, smallest[near.across.nearest[:, :2].ravel()])
    for_adapt &= near.across.exact | (given < 0)  # some were not looked at
    unasked = [number for number, share in enumerate(target) if not share]
    reasons = {
        REASON: kept_out,
        TRAINED: seen,
        CONFLICT: contradict & ~kept_out,
        "unlabelled": ~labelled & usable & ~for_adapt,
        "synthetic": counted & synthetic & np.isin(roles, [*map(ROLES.index, REAL_ONLY), *unasked]),
    }
    left_out = {ids[row]: reason for reason, which in reasons.items() for row in np.flatnonzero(which).tolist()}
    without_role = [which for reason, which in reasons.items() if reason not in (REASON, TRAINED)]
    held = np.where(np.any(without_role, axis=0), roles, NONE)
    roles[np.any([*reasons.values(), ~labelled], axis=0)] = NONE
    return Division(
        ids=ids,
        pixels=pixels,
        labels=labels,
        class_names=class_names,
        synthetic=synthetic,
        roles=roles,
        for_adapt=for_adapt,
        held=held,
        target=target,
        groups=smallest,
        rules=rules,
        largest=largest,
        given=given,
        across=near.across,
        left_out=left_out,
        kept=kept,
        looks=looks,
        trained=None if trained is None or known is None else (trained, known),
        warnings=[
            *drives.warnings,
            *rules["source_id"].warnings,
            *_moved(given, roles),
            *_warnings(near, largest, Counter(left_out.values())),
            *(kept.warnings if kept else []),
            *(known.warnings() if known else []),
        ],
    )


def _moved(given: Ints, roles: Ints) -> list[str]:
    """A line when images that were given TRAIN fill roles that were given to no image."""
    train = ROLES.index(TRAIN)
    moved = roles[(given == train) & (roles >= 0) & (roles != train)]
    if not len(moved):
        return []
    names = ", ".join(ROLES[role] for role in np.unique(moved))
    return [
        f"{len(moved)} of {np.count_nonzero(given == train)} images that were given TRAIN are in {names}, because no "
        "image with a label was given these splits."
    ]


def _warnings(near: NearDuplicates, largest: LargestGroup, left_out: Counter[str]) -> list[str]:
    """What a reader must know of near-duplicates in two splits, of a group of most images and of images left out."""
    result, across = [], near.across
    if across.count:
        result.append(
            f"{'' if across.exact else 'At least '}{across.count} pairs of images in different given splits show the "
            "same, so figures on TEST can be too good: "
            f"near_duplicate_pairs in splits.json lists {min(across.count, MOST_PAIRS)} of them, nearest first."
        )
    if near.unseen:
        result.append(
            f"At least {near.unseen} pairs of images look alike by their hashes and were not looked at, because there "
            "were more than can be looked at, and are not joined: lower split.near_duplicate_bits, or name the drives."
        )
    if largest.share > GIANT:
        result.append(f"O{str(largest)[1:]}.")
    if left_out["synthetic"]:
        result.append(
            f"{left_out['synthetic']} synthetic images of groups in {' and '.join(REAL_ONLY)} are in no split."
        )
    if left_out[CONFLICT]:
        result.append(
            f"{left_out[CONFLICT]} images look the same as one with another label and are in no split "
            "(split.conflicting_labels: drop)."
        )
    if left_out["unlabelled"]:
        result.append(
            f"{left_out['unlabelled']} images without a label are not for adapt either: images of their group, or "
            "pictures that show the same, are held out."
        )
    return result
