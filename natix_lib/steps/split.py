"""split: dataset -> splits.json; groups are whole, every class is in every role, given splits are kept and checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_lib import config
from natix_lib.contracts import ROLES, SCHEMA_VERSION
from natix_lib.data.dataset import Dataset, open_dataset
from natix_lib.data.groups import Linked, near_duplicates, same_value, within_metres
from natix_lib.data.partition import assign
from natix_lib.errors import DataError
from natix_lib.files import JsonDict, write_json
from natix_lib.progress import Lines
from natix_lib.step_settings import SplitSettings

NEAR = "near_duplicate"


def run(settings: Mapping[str, Any], dataset: str, splits: str) -> dict[str, float]:
    """Divide a dataset into TRAIN, VAL_SELECT, VAL_CALIB and TEST.

    Near-duplicates that a data owner put into different given splits are counted and said, not refused: perceptual
    hashes of small images collide, and public benchmarks have such pairs. A drive, a place, an original or equal
    pixels in two given splits is a leak and refused.

    Args:
        settings: `SplitSettings`.
        dataset: Dataset folder.
        splits: splits.json to write.

    Returns:
        Images of each role, groups, and near-duplicates across given splits.

    Raises:
        DataError: If a group crosses given splits, or a role cannot hold every class.
    """
    wanted = config.parse(SplitSettings, settings).split
    data = open_dataset(dataset)
    ids = data.column("id")
    given = _given_roles(data, wanted)
    pairs = {
        "group": same_value(data.column("group")),
        "source_id": same_value(data.column("source_id")),
        "place": within_metres(
            np.array(data.column("lat"), dtype=np.float64),
            np.array(data.column("lon"), dtype=np.float64),
            wanted.gps_radius_m,
        ),
        "same_pixels": same_value(data.column("sha256")),
        NEAR: near_duplicates(data.column("phash"), wanted.near_duplicate_bits),
    }
    for rule, found in pairs.items():
        if rule != NEAR:
            _refuse_leak(rule, found, given, ids)
    across = _across(pairs[NEAR], given)
    pairs[NEAR] = pairs[NEAR][~across]
    lines = Lines()
    if across.any():
        lines.say(f"warning: {int(across.sum())} pairs of images in different given splits look alike")
    component = Linked(pairs).components(len(data))
    labels = np.array(data.column("label"), dtype=np.int64)
    groups = int(component.max()) + 1
    counts = np.zeros((groups, len(data.class_names)), dtype=np.int64)
    np.add.at(counts, (component, labels), 1)
    given_group = np.full(groups, -1, dtype=np.int64)
    np.maximum.at(given_group, component, given)
    _refuse_mixed(component, given, given_group, ids)
    ratios = np.array([getattr(wanted.ratios, name) for name in config.ROLE_RATIO_NAMES])
    role_of_group = assign(counts, ratios, given_group, wanted.min_per_class, wanted.seed, data.class_names)
    roles = role_of_group[component]
    document = _document(data, ids, labels, component, roles, wanted, ratios)
    document["links"] = {rule: len(found) for rule, found in pairs.items()}
    document["near_duplicates_across_given_splits"] = int(across.sum())
    write_json(splits, document)
    sizes = {role: int((roles == number).sum()) for number, role in enumerate(ROLES)}
    lines.say(f"{groups} groups; " + ", ".join(f"{role} {size}" for role, size in sizes.items()))
    return {
        **{f"images_{role.lower()}": size for role, size in sizes.items()},
        "groups": groups,
        "near_duplicates_across_given_splits": int(across.sum()),
    }


def _given_roles(data: Dataset, wanted: config.Split) -> NDArray[np.int64]:
    """The role number that the source gave each image, -1 for none, (n,)."""
    numbers: dict[Any, int] = {role: number for number, role in enumerate(ROLES)}
    column = data.column("given_split") if wanted.use_given else [None] * len(data)
    return np.array([numbers.get(role, -1) for role in column], dtype=np.int64)


def _across(pairs: NDArray[np.int64], given: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pairs lie in two different given splits."""
    a, b = given[pairs[:, 0]], given[pairs[:, 1]]
    result: NDArray[np.bool_] = (a >= 0) & (b >= 0) & (a != b)
    return result


def _refuse_leak(rule: str, pairs: NDArray[np.int64], given: NDArray[np.int64], ids: list[str]) -> None:
    across = pairs[_across(pairs, given)]
    if len(across):
        a, b = across[0]
        raise DataError(
            f"given splits leak: {len(across)} pairs of one {rule} lie in two splits, the first is {ids[a]} "
            f"({ROLES[given[a]]}) and {ids[b]} ({ROLES[given[b]]}); mend the split column or set split.use_given: false"
        )


def _refuse_mixed(
    component: NDArray[np.int64], given: NDArray[np.int64], of_group: NDArray[np.int64], ids: list[str]
) -> None:
    """A chain of links through images without a given split can join two given splits as well."""
    mixed = np.flatnonzero((given >= 0) & (given != of_group[component]))
    if len(mixed):
        a = int(mixed[0])
        b = int(np.flatnonzero((component == component[a]) & (given == of_group[component[a]]))[0])
        raise DataError(
            f"given splits leak: one group joins {ids[a]} ({ROLES[given[a]]}) and {ids[b]} ({ROLES[given[b]]}); "
            "mend the split column or set split.use_given: false"
        )


def _document(
    data: Dataset,
    ids: list[str],
    labels: NDArray[np.int64],
    component: NDArray[np.int64],
    roles: NDArray[np.int64],
    wanted: config.Split,
    ratios: NDArray[np.float64],
) -> JsonDict:
    members: dict[int, str] = {}
    for number, name in zip(component.tolist(), ids, strict=True):
        members[number] = min(name, members.get(number, name))
    return {
        "artifact": "splits",
        "schema_version": SCHEMA_VERSION,
        "dataset_fingerprint": data.fingerprint,
        "class_names": data.class_names,
        "roles": {
            role: sorted(name for name, own in zip(ids, roles, strict=True) if own == number)
            for number, role in enumerate(ROLES)
        },
        "groups": {name: members[number] for name, number in zip(ids, component.tolist(), strict=True)},
        "ratios": {
            "target": dict(zip(ROLES, ratios.tolist(), strict=True)),
            "achieved": {role: float((roles == number).mean()) for number, role in enumerate(ROLES)},
        },
        "counts": {
            role: {
                name: int(((roles == number) & (labels == label)).sum()) for label, name in enumerate(data.class_names)
            }
            for number, role in enumerate(ROLES)
        },
        "seed": wanted.seed,
    }
