"""ingest: labelled images of any supported format -> dataset: upright, resized once, hashed, fingerprinted."""

import csv
import io
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from natix_lib import config, storage
from natix_lib.config.step_settings import IngestSettings
from natix_lib.contracts import write_manifest
from natix_lib.data.arrow import ShardWriter, record, schema
from natix_lib.data.classes import resolve_classes
from natix_lib.data.doubts import contradictions, without_names, without_placeholders
from natix_lib.data.images import Prepared, prepare
from natix_lib.data.rows import Source, some
from natix_lib.data.sources import open_source
from natix_lib.errors import DataError, StorageError
from natix_lib.files import canonical_json, sha256_bytes, write_bytes
from natix_lib.progress import Lines

WINDOW = 256  # images in memory at once


def run(settings: Mapping[str, Any], dataset: str) -> dict[str, float]:
    """Read images and labels, and write a dataset.

    Args:
        settings: `IngestSettings`.
        dataset: Folder to write.

    Returns:
        Images, rejected images and classes.

    Raises:
        NatixError: If the source cannot be read, a label is missing, classes do not fit the config, or more images
            than `data.max_reject_fraction` cannot be decoded.
    """
    wanted = config.parse(IngestSettings, settings)
    folder = Path(dataset)
    with tempfile.TemporaryDirectory() as scratch:
        if not storage.is_remote(wanted.data.data_root) and not Path(wanted.data.data_root).is_dir():
            raise DataError(f"data.data_root {wanted.data.data_root} is no folder")
        root = storage.fetch_folder(wanted.data.data_root, Path(scratch) / "source")
        source = open_source(root, wanted.data)
        if wanted.data.unlabelled == "drop":
            source = _labelled(source)
        return _write(source, wanted, folder)


def _labelled(source: Source) -> Source:
    """The source without its rows that have no label."""
    kept = [row.label is not None for row in source.rows]
    dropped = [row.id for row in source.rows if row.label is None]
    if not dropped:
        return source
    line = f"left out {len(dropped)} of {len(kept)} rows without a label (data.unlabelled: drop): {some(dropped)}"
    return source.only(kept, line)


def _write(source: Source, wanted: IngestSettings, folder: Path) -> dict[str, float]:
    lines = Lines()
    rows, doubts = without_placeholders(source.rows)
    rows, names_left_out = without_names(rows)
    warnings = [*source.warnings, *doubts, *names_left_out]
    for warning in warnings:
        lines.say(f"warning: {warning}")
    names, labels, positive = resolve_classes(
        [row.id for row in rows], [row.label for row in rows], source.class_names, wanted.data, wanted.num_classes
    )
    if positive and not wanted.data.positive_classes:
        lines.say(f"positive class: {positive[0]}, the last of two names; data.positive_classes decides")
    tag_names = sorted({name for row in rows for name in row.tags})
    facts: list[list[Any]] = []
    rejects: list[tuple[str, str]] = []
    counts: Counter[int] = Counter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writer = ShardWriter(folder, schema(names, tag_names))
        for number, (row, label, image) in enumerate(zip(rows, labels, _prepared(source, wanted.data), strict=True), 1):
            lines.progress("images", number, len(rows))
            if isinstance(image, DataError):
                rejects.append((row.id, str(image)))
                continue
            writer.add(record(row, label, image, tag_names))
            counts[label] += 1
            known = {key: value for key, value in vars(row).items() if key not in ("id", "label")}
            facts.append([row.id, image.sha256, names[label], known])
        writer.close()
    except OSError as error:
        raise StorageError(f"cannot write dataset {folder}: {error.strerror or error}") from error
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([("id", "reason"), *rejects])
    write_bytes(folder / "rejects.csv", text.getvalue().encode())
    if len(rejects) > wanted.data.max_reject_fraction * len(rows):
        first = "; ".join(f"{name}: {reason}" for name, reason in rejects[:3])
        raise DataError(
            f"{len(rejects)} of {len(rows)} images cannot be used, more than data.max_reject_fraction "
            f"{wanted.data.max_reject_fraction:g}: {first}"
        )
    contradicting = contradictions([(name, pixels, label) for name, pixels, label, _ in facts])
    for warning in contradicting:
        lines.say(f"warning: {warning}")
    absent = [name for label, name in enumerate(names) if not counts[label]]
    if absent:
        raise DataError(f"class {absent[0]} has no usable image")
    write_manifest(
        folder,
        "dataset",
        {
            "class_names": names,
            "positive_classes": positive,
            "rows": len(facts),
            "rejected": len(rejects),
            "counts": {name: counts[label] for label, name in enumerate(names)},
            "tag_names": tag_names,
            "warnings": [*warnings, *contradicting],
            "resize_shorter_side": wanted.data.resize_shorter_side,
            "fingerprint": sha256_bytes(
                canonical_json([names, positive, sorted(facts, key=lambda fact: str(fact[0]))])
            ),
        },
    )
    classes = ", ".join(f"{name} {counts[label]}" for label, name in enumerate(names))
    lines.say(f"{len(facts)} images, {len(rejects)} rejected, classes: {classes}")
    return {"images": len(facts), "rejected": len(rejects), "classes": len(names)}


def _prepared(source: Source, wanted: config.DataSource) -> Iterator[Prepared | DataError]:
    """Images ready to be stored, or the reason why not, in order; decoded by as many threads as there are cores."""

    def one(content: bytes | DataError) -> Prepared | DataError:
        if isinstance(content, DataError):
            return content
        try:
            return prepare(content, wanted.resize_shorter_side, wanted.max_pixels)
        except DataError as error:
            return error

    images = source.images()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while window := list(itertools.islice(images, WINDOW)):
            yield from pool.map(one, window)
