"""split: dataset -> splits.json; groups are whole, every class is in every role, given splits are kept and checked.

Rows are taken by rising id, so that neither their order nor the shards' tells in anything. Synthetic images are left
out of VAL_CALIB and TEST: what is fitted and reported there must hold for images as cameras take them. They are left
out, rather than their whole groups kept in TRAIN, because a set with synthetic children of every photograph would have
no group left for TEST. They still hold their group together.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_lib import config
from natix_lib.config.step_settings import SplitSettings
from natix_lib.contracts import ROLES, SCHEMA_VERSION
from natix_lib.data.dataset import open_dataset
from natix_lib.data.duplicates import Crossing, near_duplicates, near_duplicates_across
from natix_lib.data.groups import joined_by_all, same_source, same_value
from natix_lib.data.partition import REAL_ONLY, Groups, assign
from natix_lib.data.places import within_metres
from natix_lib.errors import DataError
from natix_lib.files import JsonDict, write_json
from natix_lib.progress import Lines

Ints = NDArray[np.int64]
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


def run(settings: Mapping[str, Any], dataset: str, splits: str) -> dict[str, float]:
    """Divide a dataset into TRAIN, VAL_SELECT, VAL_CALIB and TEST.

    Near-duplicates that a data owner put into different given splits are counted, listed and said, not refused:
    perceptual hashes of small images collide, and public benchmarks have such pairs. A drive, a place, an original or
    equal pixels in two given splits is a leak and refused.

    Args:
        settings: `SplitSettings`.
        dataset: Dataset folder.
        splits: splits.json to write.

    Returns:
        Images of each role, images left out, groups, and near-duplicates across given splits.

    Raises:
        DataError: If a group crosses given splits, or a role cannot hold every class.
    """
    wanted = config.parse(SplitSettings, settings).split
    data = open_dataset(dataset)
    ids = data.column("id")
    order = sorted(range(len(ids)), key=ids.__getitem__)

    def column(name: str) -> list[Any]:
        values = data.column(name)
        return [values[row] for row in order]

    ids, groups, hashes = column("id"), column("group"), column("phash")
    given = _given_roles(column("given_split"), wanted.use_given)
    rules = {
        "group": same_value(groups),
        "source_id": same_source(ids, column("source_id")),
        "place": within_metres(
            np.array(column("lat"), dtype=np.float64), np.array(column("lon"), dtype=np.float64), wanted.gps_radius_m
        ),
        "same_pixels": same_value(column("sha256")),
    }
    for rule, smallest in rules.items():
        _refuse_leak(rule, smallest, given, ids)
    rules[NEAR] = _near_within_splits(hashes, given, wanted.near_duplicate_bits)
    across = near_duplicates_across(hashes, given, wanted.near_duplicate_bits, MOST_PAIRS)
    smallest = joined_by_all(list(rules.values()))
    _refuse_leak("all rules together", smallest, given, ids)
    largest = _largest(smallest, rules, ids)
    warnings = _warnings(across, wanted, largest, groups, column("captured_at"))
    labels = np.array(column("label"), dtype=np.int64)
    synthetic = np.array([bool(value) for value in column("is_synthetic")])
    ratios = np.array([getattr(wanted.ratios, name) for name in config.ROLE_RATIO_NAMES])
    try:
        roles = _roles(smallest, labels, synthetic, given, ids, ratios, wanted, data.class_names)
    except DataError as error:
        raise DataError(f"{error}; {_giant(largest)}" if largest["share"] > GIANT else str(error)) from error
    left_out = synthetic & np.isin(roles, [ROLES.index(role) for role in REAL_ONLY])
    if left_out.any():
        warnings.append(
            f"{int(left_out.sum())} synthetic images of groups in {' and '.join(REAL_ONLY)} are in no split."
        )
    roles[left_out] = -1
    document = {
        "artifact": "splits",
        "schema_version": SCHEMA_VERSION,
        "dataset_fingerprint": data.fingerprint,
        "class_names": data.class_names,
        **_division(ids, labels, roles, synthetic, data.class_names),
        "groups": {name: ids[first] for name, first in zip(ids, smallest.tolist(), strict=True)},
        "left_out": {ids[row]: "synthetic" for row in np.flatnonzero(left_out)},
        "links": {rule: int((first != np.arange(len(ids))).sum()) for rule, first in rules.items()},
        "largest_group": largest,
        "near_duplicates_across_given_splits": across.count,
        "near_duplicates_counted_exactly": across.exact,
        "near_duplicate_pairs": [
            [ids[a], ROLES[given[a]], ids[b], ROLES[given[b]], bits] for a, b, bits in across.nearest.tolist()
        ],
        "seed": wanted.seed,
        "warnings": warnings,
    }
    document["ratios"]["target"] = dict(zip(ROLES, ratios.tolist(), strict=True))
    write_json(splits, document)
    lines = Lines()
    for warning in warnings:
        lines.say(f"warning: {warning}")
    sizes = {role: len(document["roles"][role]) for role in ROLES}
    count = len(np.unique(smallest))
    lines.say(f"{count} groups; " + ", ".join(f"{role} {size}" for role, size in sizes.items()))
    return {
        **{f"images_{role.lower()}": size for role, size in sizes.items()},
        "left_out": int(left_out.sum()),
        "groups": count,
        "near_duplicates_across_given_splits": across.count,
    }


def _given_roles(column: list[Any], use_given: bool) -> Ints:
    """The role number that the source gave each image, -1 for none, (n,)."""
    numbers: dict[Any, int] = {role: number for number, role in enumerate(ROLES)}
    return np.array([numbers.get(role, -1) if use_given else -1 for role in column], dtype=np.int64)


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


def _largest(smallest: Ints, rules: dict[str, Ints], ids: list[str]) -> JsonDict:
    """The largest group: its share of the images, the rule with most links in it, and the first two that it joins."""
    first = int(np.bincount(smallest).argmax())
    members = np.flatnonzero(smallest == first)
    links = {rule: members[joined[members] != members] for rule, joined in rules.items()}
    rule = max(links, key=lambda name: len(links[name]))
    examples = [ids[row] for row in (rules[rule][links[rule][0]], links[rule][0])] if len(links[rule]) else []
    return {
        "name": ids[first],
        "images": len(members),
        "share": len(members) / len(ids),
        "rule": rule if examples else None,
        "links": {name: len(rows) for name, rows in links.items()},
        "examples": examples,
    }


def _giant(largest: JsonDict) -> str:
    reason = ""
    if largest["examples"]:
        a, b = largest["examples"]
        reason = f", most of them joined by {largest['rule']} ({SWITCHES[largest['rule']]}), first {a} and {b}"
    return f"one group holds {largest['images']} images, {largest['share']:.0%} of all{reason}"


def _warnings(
    across: Crossing, wanted: config.Split, largest: JsonDict, groups: list[Any], captured_at: list[Any]
) -> list[str]:
    """What a reader of the report must know of the division, sentences."""
    result = []
    if across.count:
        result.append(
            f"{'' if across.exact else 'At least '}{across.count} pairs of images in different given splits look alike "
            f"(at most {wanted.near_duplicate_bits} of 64 bits differ), so figures on TEST can be too good: "
            f"near_duplicate_pairs in splits.json lists {len(across.nearest)} of them, nearest first."
        )
    if largest["share"] > GIANT:
        result.append(f"O{_giant(largest)[1:]}.")
    untold = sum(time is not None and group is None for time, group in zip(captured_at, groups, strict=True))
    if untold:
        result.append(
            f"{untold} images have a captured_at and no group: times join no frames, so frames of one drive can lie in "
            "two splits unless they look alike."
        )
    return result


def _roles(
    smallest: Ints,
    labels: Ints,
    synthetic: NDArray[np.bool_],
    given: Ints,
    ids: list[str],
    ratios: NDArray[np.float64],
    wanted: config.Split,
    class_names: list[str],
) -> Ints:
    """The role number of each image, (n,)."""
    first, group = np.unique(smallest, return_inverse=True)
    counts = np.zeros((2, len(first), len(class_names)), dtype=np.int64)
    np.add.at(counts, (synthetic.astype(np.int64), group, labels), 1)
    given_group = np.full(len(first), -1, dtype=np.int64)
    np.maximum.at(given_group, group, given)
    groups = Groups([ids[row] for row in first], counts[0], counts[1], given_group)
    roles: Ints = assign(groups, ratios, wanted.min_per_class, wanted.seed, class_names)[group]
    return roles


def _division(
    ids: list[str], labels: Ints, roles: Ints, synthetic: NDArray[np.bool_], class_names: list[str]
) -> JsonDict:
    """Who is in which role, how many of each class, and the achieved share of the images that are not synthetic."""
    real = np.count_nonzero(~synthetic)
    members = {role: np.flatnonzero(roles == number) for number, role in enumerate(ROLES)}
    return {
        "roles": {role: [ids[row] for row in rows] for role, rows in members.items()},
        "counts": {
            role: {name: int((labels[rows] == label).sum()) for label, name in enumerate(class_names)}
            for role, rows in members.items()
        },
        "ratios": {"achieved": {role: int((~synthetic[rows]).sum()) / real for role, rows in members.items()}},
    }
