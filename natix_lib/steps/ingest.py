"""ingest: labelled images of any supported format -> images and their index: upright, resized once, hashed."""

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from natix_lib import config
from natix_lib.config.step_settings import IngestSettings
from natix_lib.contracts import write_manifest
from natix_lib.cpus import cpu_threads
from natix_lib.data.arrow import ShardWriter, images_schema
from natix_lib.data.classes import resolve_classes
from natix_lib.data.doubts import contradictions, without_names, without_placeholders
from natix_lib.data.images import Prepared, prepare
from natix_lib.data.index import write_index
from natix_lib.data.root import local_root
from natix_lib.data.rows import Row, Source, some
from natix_lib.data.sources import open_source
from natix_lib.errors import DataError, StorageError
from natix_lib.files import canonical_json, sha256_bytes, write_csv
from natix_lib.progress import WARNING, Lines

WINDOW = 256  # images in memory at once


def run(settings: Mapping[str, Any], *, images: str, index: str, rejects: str) -> dict[str, float]:
    """Read images and labels, and write them.

    Args:
        settings: What ingest reads of the config: the keys of `IngestSettings`.
        images: Folder to write the encoded images to, by id.
        index: Path to write what is known of each image to, as Parquet.
        rejects: Path to write id and reason of each image that cannot be used to, as CSV; it is written also when that
            ends the step.

    Returns:
        Images, rejected images and classes.

    Raises:
        NatixError: If the source cannot be read, a label is missing, classes do not fit the config, or more images
            than `data.max_reject_fraction` cannot be decoded.
    """
    ingest_settings = config.parse(IngestSettings, settings)
    data = ingest_settings.data
    with tempfile.TemporaryDirectory() as scratch:
        source = open_source(local_root(data, Path(scratch)), data)
        if data.unlabelled == "drop":
            source = _labelled(source)
        return _write(source, ingest_settings, Path(images), index, rejects)


def _labelled(source: Source) -> Source:
    """The source without its rows that have no label."""
    kept = [row.label is not None for row in source.rows]
    dropped = [row.id for row in source.rows if row.label is None]
    if not dropped:
        return source
    line = f"left out {len(dropped)} of {len(kept)} rows without a label (data.unlabelled: drop): {some(dropped)}"
    return source.only(kept, line)


def _write(
    source: Source, ingest_settings: IngestSettings, folder: Path, index: str, rejects_file: str
) -> dict[str, float]:
    data, lines = ingest_settings.data, Lines()
    rows, doubts = without_placeholders(source.rows)
    rows, names_left_out = without_names(rows)
    warnings = [*source.warnings, *doubts, *names_left_out]
    for warning in warnings:
        lines.say(f"{WARNING}{warning}")
    names, labels, positive = resolve_classes(
        [row.id for row in rows], [row.label for row in rows], source.class_names, data, ingest_settings.num_classes
    )
    if positive and not data.positive_classes:
        lines.say(f"positive class: {positive[0]}, the last of two names; data.positive_classes decides")
    tag_names = sorted({name for row in rows for name in row.tags})
    identities: list[list[Any]] = []  # what the fingerprint is made of
    index_rows: list[dict[str, Any]] = []
    rejects: list[tuple[str, str]] = []
    counts: Counter[int] = Counter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        image_schema = images_schema()
        writer = ShardWriter(folder, image_schema)
        for number, (row, label, image) in enumerate(zip(rows, labels, _prepared(source, data), strict=True), 1):
            lines.progress("images", number, len(rows))
            if isinstance(image, DataError):
                rejects.append((row.id, str(image)))
                continue
            stored = {"id": row.id, "image": {"bytes": image.content, "path": None}}
            writer.add(pa.RecordBatch.from_pylist([stored], schema=image_schema))
            index_rows.append(_index_row(row, label, image, tag_names))
            counts[label] += 1
            known = {key: value for key, value in vars(row).items() if key not in ("id", "label")}
            identities.append([row.id, image.sha256, names[label], known])
        files = writer.close()
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror or error}") from error
    write_csv(rejects_file, [("id", "reason"), *rejects])
    if len(rejects) > data.max_reject_fraction * len(rows):
        first = "; ".join(f"{name}: {reason}" for name, reason in rejects[:3])
        raise DataError(
            f"{len(rejects)} of {len(rows)} images cannot be used, more than data.max_reject_fraction "
            f"{data.max_reject_fraction:g}: {first}"
        )
    contradicting = contradictions([(name, pixels, label) for name, pixels, label, _ in identities])
    for warning in contradicting:
        lines.say(f"{WARNING}{warning}")
    absent = [name for label, name in enumerate(names) if not counts[label]]
    if absent:
        raise DataError(f"class {absent[0]} has no usable image")
    index_sha256 = write_index(
        index,
        index_rows,
        tag_names,
        {
            "class_names": names,
            "positive_classes": positive,
            "rows": len(identities),
            "rejected": len(rejects),
            "counts": {name: counts[label] for label, name in enumerate(names)},
            "warnings": [*warnings, *contradicting],
            "resize_shorter_side": data.resize_shorter_side,
            "fingerprint": sha256_bytes(
                canonical_json([names, positive, sorted(identities, key=lambda identity: str(identity[0]))])
            ),
        },
    )
    write_manifest(folder, "images", {"rows": len(identities), "index_sha256": index_sha256}, files)
    classes = ", ".join(f"{name} {counts[label]}" for label, name in enumerate(names))
    lines.say(f"{len(identities)} images, {len(rejects)} rejected, classes: {classes}")
    return {"images": len(identities), "rejected": len(rejects), "classes": len(names)}


def _index_row(row: Row, label: int, image: Prepared, tag_names: Sequence[str]) -> dict[str, Any]:
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


def _prepared(source: Source, data: config.DataSource) -> Iterator[Prepared | DataError]:
    """Images ready to be stored, or the reason why not, in order; decoded by as many threads as `cpu_threads` says."""

    def one(content: bytes | DataError) -> Prepared | DataError:
        if isinstance(content, DataError):
            return content
        try:
            return prepare(content, data.resize_shorter_side, data.max_pixels)
        except DataError as error:
            return error

    images = source.images()
    with ThreadPoolExecutor(cpu_threads()) as pool:
        while window := list(itertools.islice(images, WINDOW)):
            yield from pool.map(one, window)
