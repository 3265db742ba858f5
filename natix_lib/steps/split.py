"""split: images and their index -> splits.json, a set of images for each role, all links, and data.html."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from natix_lib import config
from natix_lib.config.step_settings import SplitSettings
from natix_lib.contracts import (
    ROLES,
    SCHEMA_VERSION,
    SETS,
    TEST,
    TRAIN,
    UNLABELLED,
    VAL_CALIB,
    VAL_SELECT,
    check_document,
    read_manifest,
    require_same,
)
from natix_lib.data.division import COLUMNS, Division, divide
from natix_lib.data.index import Index, read_index
from natix_lib.data.links import write_links
from natix_lib.data.overview import overview
from natix_lib.data.previous import Previous, read_previous
from natix_lib.data.sets import indexed_images, write_sets
from natix_lib.data.thumbnails import Thumbnails
from natix_lib.data.trained import Trained
from natix_lib.data.variety import MOST_VALUES
from natix_lib.files import JsonDict, canonical_json, sha256_bytes, write_bytes
from natix_lib.progress import WARNING, Lines
from natix_lib.reports.data import render_data
from natix_lib.steps.certifiable import require_certifiable
from natix_lib.steps.fingerprints import PREVIOUS, require_told


def run(
    settings: Mapping[str, Any],
    *,
    images: str | Sequence[str],
    index: str,
    splits: str,
    train_set: str,
    val_select_set: str,
    val_calib_set: str,
    test_set: str,
    unlabelled_set: str,
    links: str,
    data_report: str,
    previous_fingerprint: str = "",
) -> dict[str, float]:
    """Divide images into TRAIN, VAL_SELECT, VAL_CALIB and TEST.

    Args:
        settings: What split reads of the config: the keys of `SplitSettings`.
        images: Folder of all encoded images, or those of all shards, in any order.
        index: File with what is known of each of them.
        splits: Path to write splits.json to.
        train_set: Folder to write the images of TRAIN to.
        val_select_set: Folder to write the images of VAL_SELECT to.
        val_calib_set: Folder to write the images of VAL_CALIB to.
        test_set: Folder to write the images of TEST to.
        unlabelled_set: Folder to write the images without a label to, for adapt; it may stay without any.
        links: Path to write what joins which images to, as Parquet.
        data_report: Path to write the data report to, as HTML.
        previous_fingerprint: What was told of `split.previous`, see `steps.fingerprints`; "" where nothing was.

    Returns:
        Images of each role and of none for adapt, images left out, groups, and near-duplicates across given splits.

    Raises:
        DataError: If a group crosses given splits, or a role cannot hold every class.
        CalibrationError: If `scrc` is given and VAL_CALIB has too few groups for anything to be certified.
        ContractError: If the images are not those of the index, or `split.previous` is no splits.json.
        StorageError: If `split.previous` cannot be read or was changed meanwhile.
    """
    sections = config.parse(SplitSettings, settings)
    earlier = sections.split.previous
    previous = read_previous(earlier) if earlier else None  # before all images are hashed
    if earlier and previous:
        require_told(PREVIOUS, earlier, previous_fingerprint, previous.sha256)
    ingested, folders_of_images = open_ingested(index, images)
    stored = indexed_images(folders_of_images, ingested)
    division, document = divided(ingested, sections, stored, previous)
    folders = {
        TRAIN: train_set,
        VAL_SELECT: val_select_set,
        VAL_CALIB: val_calib_set,
        TEST: test_set,
        UNLABELLED: unlabelled_set,
    }
    write_division((division, document), ingested, stored, folders, splits, links, data_report)
    return said(division, document)


def write_division(
    made: tuple[Division, JsonDict],
    ingested: Index,
    stored: Any,
    folders: Mapping[str, str],
    splits: str,
    links: str,
    data_report: str,
) -> None:
    """Write a division: the sets of its roles, its links, the page of the data, and splits.json at last.

    Args:
        made: The division, and the content of splits.json.
        ingested: The index of the images.
        stored: The Arrow table of the images, in the order of the index.
        folders: Role, or UNLABELLED, to the folder of its set.
        splits: Path of splits.json.
        links: Path of the links.
        data_report: Path of the page.
    """
    division, document = made
    content, ids = canonical_json(document), ingested.column("id")
    numbers = np.where(division.for_adapt, list(SETS).index(UNLABELLED), division.roles)
    set_of = dict(zip(division.ids, numbers.tolist(), strict=True))
    write_sets(
        stored,
        ingested,
        np.array([set_of[name] for name in ids]),
        [document["groups"][name] for name in ids],
        sha256_bytes(content),
        {role: Path(folder) for role, folder in folders.items()},
    )
    write_links(links, division.ids, division.rules)
    content_of_page = overview(ingested, (division, document), Thumbnails(stored))
    write_bytes(data_report, render_data(content_of_page).encode())
    write_bytes(splits, content)


def said(division: Division, document: JsonDict) -> dict[str, float]:
    """Say how many images each role has and what a reader must know, and give the metrics of the step."""
    lines = Lines()
    for warning in division.warnings:
        lines.say(f"{WARNING}{warning}")
    if division.kept is not None:
        lines.say(f"{division.kept.images} images keep their role of split.previous, {division.kept.new} are new")
    sizes = {role: len(document["roles"][role]) for role in ROLES}
    unlabelled = len(document["unlabelled"])
    lines.say(
        f"{division.group_count} groups; "
        + ", ".join(f"{role} {size}" for role, size in sizes.items())
        + (f"; {unlabelled} without a label for adapt" if unlabelled else "")
    )
    return {
        **{f"images_{role.lower()}": size for role, size in sizes.items()},
        "images_unlabelled": unlabelled,
        "left_out": len(document["left_out"]),
        "groups": division.group_count,
        "near_duplicates_across_given_splits": division.across.count,
    }


def divided(
    index: Index, settings: SplitSettings, images: Any, previous: Previous | None, trained: Trained | None = None
) -> tuple[Division, JsonDict]:
    """Divide the images of an index.

    Args:
        index: What is known of each image.
        settings: What split reads of the config.
        images: The Arrow table of the images, in the order of the index.
        previous: The division that `split.previous` names.
        trained: What a model was fitted on, which is left out.

    Returns:
        The division, and the content of splits.json.

    Raises:
        DataError: If a group crosses given splits, or a role cannot hold every class.
        CalibrationError: If `scrc` is given and VAL_CALIB has too few groups for anything to be certified.
    """
    split = settings.split
    columns, jpegs = {name: index.column(name) for name in COLUMNS}, images.column("image")

    def picture(row: int) -> Image.Image:
        return Image.open(io.BytesIO(jpegs[row]["bytes"].as_py()), formats=("JPEG",))

    division = divide(columns, index.class_names, split, previous, picture, trained, index.few_valued_tags(MOST_VALUES))
    document = {
        "artifact": "splits",
        "schema_version": SCHEMA_VERSION,
        "dataset_fingerprint": index.fingerprint,
        "content_fingerprint": index.content_fingerprint,
        "seed": split.seed,
        **division.document(),
    }
    check_document(document, "splits", "splits.json")
    if settings.scrc is not None:
        require_certifiable(document, settings.scrc)
    return division, document


def open_ingested(index: str, images: str | Sequence[str]) -> tuple[Index, list[tuple[Path, JsonDict]]]:
    """The index, and the folders of its images in its order, each with the table of its files.

    Raises:
        ContractError: If the images are not those of the index.
    """
    folders = [images] if isinstance(images, str) else images
    # indexed_images hashes what it reads; images.json names the index beside it, or the part of its shard
    manifests = {folder: read_manifest(folder, "images", hash_files=False) for folder in folders}
    named = {folder: manifest["index_sha256"] for folder, manifest in manifests.items()}
    ingested = read_index(index, named[images] if isinstance(images, str) else None)
    parts = ingested.document.get("parts") or [ingested.sha256]
    require_same("images of the parts", sorted(parts), "the index", sorted(named.values()), "the folders of images")
    order = sorted(folders, key=lambda folder: parts.index(named[folder]))
    return ingested, [(Path(folder), manifests[folder]["files"]) for folder in order]
