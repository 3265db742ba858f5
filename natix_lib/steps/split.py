"""split: dataset -> splits.json."""

from collections.abc import Mapping
from typing import Any

from natix_lib import config
from natix_lib.contracts import ROLES, SCHEMA_VERSION
from natix_lib.data.dataset import open_dataset
from natix_lib.data.division import COLUMNS, divide
from natix_lib.files import write_json
from natix_lib.progress import Lines
from natix_lib.step_settings import SplitSettings


def run(settings: Mapping[str, Any], dataset: str, splits: str) -> dict[str, float]:
    """Divide a dataset into TRAIN, VAL_SELECT, VAL_CALIB and TEST.

    Args:
        settings: `SplitSettings`.
        dataset: Dataset folder.
        splits: splits.json to write.

    Returns:
        Images of each role, images left out, groups, and near-duplicates across given splits.

    Raises:
        DataError: If a group crosses given splits, or a role cannot hold every class.
    """
    split = config.parse(SplitSettings, settings).split
    data = open_dataset(dataset)
    division = divide({name: data.column(name) for name in COLUMNS}, data.class_names, split)
    document = {
        "artifact": "splits",
        "schema_version": SCHEMA_VERSION,
        "dataset_fingerprint": data.fingerprint,
        "seed": split.seed,
        **division.document(),
    }
    write_json(splits, document)
    lines = Lines()
    for warning in division.warnings:
        lines.say(f"warning: {warning}")
    sizes = {role: len(document["roles"][role]) for role in ROLES}
    lines.say(f"{division.group_count} groups; " + ", ".join(f"{role} {size}" for role, size in sizes.items()))
    return {
        **{f"images_{role.lower()}": size for role, size in sizes.items()},
        "left_out": len(division.left_out),
        "groups": division.group_count,
        "near_duplicates_across_given_splits": division.across.count,
    }
