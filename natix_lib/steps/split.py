"""split: images and their index -> splits.json, and a set of images for each role."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from natix_lib import config
from natix_lib.config.step_settings import SplitSettings
from natix_lib.contracts import ROLES, SCHEMA_VERSION, TEST, TRAIN, VAL_CALIB, VAL_SELECT, check_document, read_manifest
from natix_lib.data.division import COLUMNS, divide
from natix_lib.data.index import read_index
from natix_lib.data.previous import read_previous
from natix_lib.data.sets import indexed_images, write_sets
from natix_lib.files import canonical_json, sha256_bytes, write_bytes
from natix_lib.progress import WARNING, Lines
from natix_lib.steps.certifiable import require_certifiable


def run(
    settings: Mapping[str, Any],
    *,
    images: str,
    index: str,
    splits: str,
    train_set: str,
    val_select_set: str,
    val_calib_set: str,
    test_set: str,
) -> dict[str, float]:
    """Divide images into TRAIN, VAL_SELECT, VAL_CALIB and TEST.

    Args:
        settings: What split reads of the config: the keys of `SplitSettings`.
        images: Folder of all encoded images.
        index: File with what is known of each of them.
        splits: Path to write splits.json to.
        train_set: Folder to write the images of TRAIN to.
        val_select_set: Folder to write the images of VAL_SELECT to.
        val_calib_set: Folder to write the images of VAL_CALIB to.
        test_set: Folder to write the images of TEST to.

    Returns:
        Images of each role, images left out, groups, and near-duplicates across given splits.

    Raises:
        DataError: If a group crosses given splits, or a role cannot hold every class.
        CalibrationError: If `scrc` is given and VAL_CALIB has too few groups for anything to be certified.
        ContractError: If the images are not those of the index, or `split.previous` is no splits.json.
        StorageError: If `split.previous` cannot be read.
    """
    sections = config.parse(SplitSettings, settings)
    split = sections.split
    previous = read_previous(split.previous) if split.previous else None
    manifest = read_manifest(images, "images", hash_files=False)  # indexed_images hashes what it reads
    ingested = read_index(index, manifest["index_sha256"])
    columns = {name: ingested.column(name) for name in COLUMNS}
    stored = indexed_images(images, manifest["files"], ingested)
    jpegs = stored.column("image")
    division = divide(
        columns,
        ingested.class_names,
        split,
        previous,
        lambda row: Image.open(io.BytesIO(jpegs[row]["bytes"].as_py())),
    )
    document = {
        "artifact": "splits",
        "schema_version": SCHEMA_VERSION,
        "dataset_fingerprint": ingested.fingerprint,
        "content_fingerprint": ingested.content_fingerprint,
        "seed": split.seed,
        **division.document(),
    }
    check_document(document, "splits", splits)
    if sections.scrc is not None:
        require_certifiable(document, sections.scrc)
    content = canonical_json(document)
    role_of = dict(zip(division.ids, division.roles.tolist(), strict=True))
    folders = {TRAIN: train_set, VAL_SELECT: val_select_set, VAL_CALIB: val_calib_set, TEST: test_set}
    write_sets(
        stored,
        ingested,
        np.array([role_of[name] for name in columns["id"]]),
        [document["groups"][name] for name in columns["id"]],
        sha256_bytes(content),
        {role: Path(folder) for role, folder in folders.items()},
    )
    write_bytes(splits, content)
    lines = Lines()
    for warning in division.warnings:
        lines.say(f"{WARNING}{warning}")
    if division.kept is not None:
        lines.say(f"{division.kept.images} images keep their role of split.previous, {division.kept.new} are new")
    sizes = {role: len(document["roles"][role]) for role in ROLES}
    lines.say(f"{division.group_count} groups; " + ", ".join(f"{role} {size}" for role, size in sizes.items()))
    return {
        **{f"images_{role.lower()}": size for role, size in sizes.items()},
        "left_out": len(division.left_out),
        "groups": division.group_count,
        "near_duplicates_across_given_splits": division.across.count,
    }
