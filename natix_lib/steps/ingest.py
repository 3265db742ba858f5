"""ingest: images of any supported format -> images and their index: upright, resized once, hashed.

With `data.shards` above 1 the pipeline has, in place of this step, a task `shard` for each shard and a task `gather`;
see `natix_lib.data.parts`. Run by itself it does all the work in one process, with the same result.
"""

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa

from natix_lib import config, run_cache, storage
from natix_lib.config.step_settings import IngestSettings
from natix_lib.contracts import write_manifest
from natix_lib.data.arrow import ShardWriter, images_schema
from natix_lib.data.classes import resolve_classes
from natix_lib.data.contradictions import contradicted, without_contradicting
from natix_lib.data.doubts import without_names, without_placeholders
from natix_lib.data.images import Prepared, prepare_all
from natix_lib.data.listing import IMAGE_SUFFIXES, is_hidden
from natix_lib.data.parts import (
    Listed,
    Part,
    Shard,
    contradicting,
    counts,
    part_of,
    require_usable,
    with_warnings,
    write_whole,
)
from natix_lib.data.root import local_root
from natix_lib.data.rows import Row, Source, some
from natix_lib.data.sources import open_source
from natix_lib.data.thumbnails import shown_rejects
from natix_lib.errors import DataError, StorageError, shortened
from natix_lib.files import JsonDict, write_csv
from natix_lib.progress import LONGEST_NAME, WARNING, Lines
from natix_lib.steps.fingerprints import DATA, require_unchanged
from natix_lib.storage.bucket import Wanted


def run(
    settings: Mapping[str, Any], *, images: str, index: str, rejects: str, data_fingerprint: str = ""
) -> dict[str, float]:
    """Read images and labels, and write them.

    Args:
        settings: What ingest reads of the config: the keys of `IngestSettings`.
        images: Folder to write the encoded images to, by id.
        index: Path to write what is known of each image to, as Parquet.
        rejects: Path to write id and reason of each image that cannot be used to, as CSV; it is written also when that
            ends the step.
        data_fingerprint: What was told of the source, see `steps.fingerprints`; "" where nothing was.

    Returns:
        Images, rejected images and classes.

    Raises:
        NatixError: If the source cannot be read or was changed meanwhile, a label is missing, classes do not fit the
            config, or more images than `data.max_reject_fraction` cannot be decoded.
    """
    ingest_settings = config.parse(IngestSettings, settings)
    part, files = decode_shard(ingest_settings, None, Path(images), data_fingerprint)
    metrics, sha256 = finish(part, ingest_settings.data, index, rejects)
    write_manifest(images, "images", {"rows": part.table.num_rows, "index_sha256": sha256}, files)
    return metrics


def decode_shard(
    ingest_settings: IngestSettings, shard: Shard | None, folder: Path, data_fingerprint: str = ""
) -> tuple[Part, JsonDict]:
    """List all rows of the source, and decode the images of a shard.

    Args:
        ingest_settings: What ingest reads of the config.
        shard: Which share of the rows is decoded; None is all, without other shards.
        folder: Folder to write the encoded images to; its manifest is the caller's to write.
        data_fingerprint: As in `run`.

    Returns:
        What the shard has made, and the table of its folder's files.

    Raises:
        NatixError: As `run`, but for what only all images can tell.
    """
    data, lines = ingest_settings.data, Lines()
    require_unchanged(DATA, data.data_root, data_fingerprint)
    with tempfile.TemporaryDirectory() as scratch, run_cache.buckets() as place, ExitStack() as open_places:
        more: list[Callable[[Collection[str]], None]] = []

        def fetch(uri: str, _: Path, wanted: Wanted) -> Path:
            staged = open_places.enter_context(storage.staged(uri, place, wanted))
            more.append(staged.fetch)
            return staged.folder

        root = local_root(data, Path(scratch), lambda name, _: shard is None or not _is_image(name), fetch)
        source = open_source(root, data)
        if data_fingerprint and not root.is_relative_to(scratch):  # of an archive all is seen
            _require_seen(source, data)
        if data.unlabelled == "drop":
            source = _labelled(source)
        source = without_contradicting(source, data)
        rows, labels, listed = _listed(source, ingest_settings)
        chosen = (shard or Shard()).rows(len(rows))
        if shard is None:
            say(listed, data)
        else:
            lines.say(f"shard {shard.number} of {shard.count} has {len(chosen)} of {len(rows)} images")
            files = [source.file(number).relative_to(root).as_posix() for number in chosen] if source.file else []
            for fetch_more in more:
                fetch_more([name for name in files if _is_image(name)])
        prepared = prepare_all(source.images_of(chosen), data.resize_shorter_side, data.max_pixels)
        index_rows: list[dict[str, Any]] = []
        rejects: list[tuple[str, str]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            image_schema = images_schema()
            writer = ShardWriter(folder, image_schema)
            for done, (number, image) in enumerate(zip(chosen, prepared, strict=True), 1):
                lines.progress("images", done, len(chosen))
                row = rows[number]
                if isinstance(image, DataError):
                    rejects.append((row.id, str(image)))
                    continue
                stored = {"id": row.id, "image": {"bytes": image.content, "path": None}}
                writer.add(pa.RecordBatch.from_pylist([stored], schema=image_schema))
                index_rows.append(_index_row(row, labels[number], image, listed.tag_names))
            shown = shown_rejects(source, rejects)
            require_unchanged(DATA, data.data_root, data_fingerprint)
            return part_of(listed, index_rows, rejects, shown), writer.close()
        except OSError as error:
            raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error


def finish(part: Part, data: config.DataSource, index: str, rejects: str) -> tuple[dict[str, float], str]:
    """Judge all images together, and write their index and what was rejected.

    Args:
        part: All that was decoded.
        data: What ingest reads of the section `data`.
        index: Path to write the index to.
        rejects: Path to write the rejected images to; written also when there are too many.

    Returns:
        Images, rejected images and classes; and the SHA-256 of the index.

    Raises:
        DataError: If too many images, or all of a class, cannot be used.
    """
    write_csv(rejects, [("id", "reason"), *part.rejects])
    require_usable(part, data.max_reject_fraction)
    return write(part, index)


def write(part: Part, index: str) -> tuple[dict[str, float], str]:
    """Write the index of all images, usable or not, and give what `finish` gives."""
    lines = Lines()
    lines_of_pixels = contradicting(part)
    for warning in lines_of_pixels:
        lines.say(f"{WARNING}{warning}")
    sha256 = write_whole(index, with_warnings(part, lines_of_pixels))
    images, names = part.table.num_rows, part.listed.class_names
    found = counts(part)
    classes = ", ".join(f"{shortened(name, LONGEST_NAME)} {count}" for name, count in found.items())
    without = images - sum(found.values())
    lines.say(
        f"{images} images, {len(part.rejects)} rejected, classes: {classes}"
        + (f"; {without} without a label, for adapt alone" if without else "")
    )
    return {"images": images, "rejected": len(part.rejects), "classes": len(names)}, sha256


def say(listed: Listed, data: config.DataSource) -> None:
    """Say once what the listing tells of all rows."""
    lines = Lines()
    for warning in listed.warnings:
        lines.say(f"{WARNING}{warning}")
    if listed.positive_classes and not data.positive_classes:
        name = shortened(listed.positive_classes[0], LONGEST_NAME)
        lines.say(f"positive class: {name}, the last of two names; data.positive_classes decides")


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _labelled(source: Source) -> Source:
    """The source without its rows that have no label."""
    kept = [row.label is not None for row in source.rows]
    dropped = [row.id for row in source.rows if row.label is None]
    if not dropped:
        return source
    line = f"left out {len(dropped)} of {len(kept)} rows without a label (data.unlabelled: drop): {some(dropped)}"
    return source.only(kept, line)


def _require_seen(source: Source, data: config.DataSource) -> None:
    """Refuse a hidden table, and images of one that are: no cache would see that they have changed."""
    names = [row.id for row in source.rows] if source.file else []
    names += [Path(data.manifest).as_posix()] if data.manifest else []
    if hidden := [name for name in names if any(map(is_hidden, name.split("/")))]:
        raise DataError(
            f"data.data_root {data.data_root}: {some(hidden)} is to be read and hidden or a system's by its name, so "
            "no cache would see it change: rename it"
        )


def _listed(source: Source, ingest_settings: IngestSettings) -> tuple[list[Row], list[int | None], Listed]:
    """The rows as they are kept, the label of each, None where it has none, and what holds for all."""
    data = ingest_settings.data
    rows, doubts = without_placeholders(source.rows)
    rows, names_left_out = without_names(rows)
    contradicting_texts, texts = contradicted(source, data)
    told = [row for row in rows if row.label is not None or data.unlabelled != "adapt"]
    names, indices, positive = resolve_classes(
        [row.id for row in told], [row.label for row in told], source.class_names, data, ingest_settings.num_classes
    )
    labels = iter(indices)
    return (
        rows,
        [None if row.label is None else next(labels) for row in rows],
        Listed(
            class_names=names,
            positive_classes=positive,
            tag_names=sorted({name for row in rows for name in row.tags}),
            resize_shorter_side=data.resize_shorter_side,
            warnings=[shortened(line) for line in [*doubts, *source.warnings, *texts, *names_left_out]],
            contradicting=contradicting_texts,
            listed=len(rows),
            listing_sha256=Listed.hash_of(rows),
        ),
    )


def _index_row(row: Row, label: int | None, image: Prepared, tag_names: Sequence[str]) -> dict[str, Any]:
    """An image's row of the index."""
    return {
        "id": row.id,
        "label": label,
        "group": row.group,
        "source_id": row.source_id,
        "captured_at": row.captured_at,
        "given_split": row.given_split,
        "lat": row.lat,
        "lon": row.lon,
        "is_synthetic": row.is_synthetic,
        "sha256": image.sha256,
        "hashes": image.hashes,
        "width": image.width,
        "height": image.height,
        "bytes": len(image.content),
        "tags": {name: row.tags.get(name) for name in tag_names},
    }
