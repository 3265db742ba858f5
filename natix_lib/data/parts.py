"""The parts of an ingested set: what one shard has made of its share of the rows, and how all of them become one index.

Every shard reads the whole listing, so that class names, tags and warnings, which only all rows can tell, are the same
wherever they are asked for; then it decodes a block of neighbouring rows. Neighbours, and not every n-th row, because
they lie in the same Parquet files and tars, of which a shard then opens its own. What only all images can tell, the
share of rejects, classes without an image, equal pixels under two labels and the fingerprint, is told of the joined
parts. A set that is not sharded is one part and goes the same way: there is no second rule to differ.

The images themselves are not joined: that would download, write and upload all of them once more, one after another in
one pod, 40 GB for a million of them, where the shards have needed a minute. split, which copies each image to its role
anyway, reads the shards' folders in their order instead. An index names its parts and images.json its part, so folders
of another run are told.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from natix_lib.data.doubts import contradictions
from natix_lib.data.fingerprint import COLUMNS as CONTENT_COLUMNS
from natix_lib.data.fingerprint import content_fingerprint
from natix_lib.data.index import index_table, read_index, write_index
from natix_lib.data.rows import EXAMPLES, Row
from natix_lib.data.thumbnails import REJECTS
from natix_lib.errors import ContractError, DataError
from natix_lib.files import JsonDict, canonical_json, sha256_bytes

FACTS = ("group", "source_id", "captured_at", "given_split", "lat", "lon", "is_synthetic")  # of the fingerprint


@dataclass(frozen=True)
class Shard:
    """One of several shares of the rows: number `number` of `count`, from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def read(cls, text: str) -> Self:
        """The shard that a text such as "2/3" names.

        Raises:
            ContractError: If it names none.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ContractError(f"shard must be NUMBER/COUNT, such as 2/3, got {text!r}")
        return cls(int(number), int(count))

    @classmethod
    def all(cls, count: int) -> list[str]:
        """Every shard of `count`, as `read` takes it."""
        return [f"{number}/{count}" for number in range(1, count + 1)]

    def rows(self, total: int) -> range:
        """Its rows of `total`: a block that differs from another shard's by one row at most, empty where rows lack."""
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)


@dataclass(frozen=True)
class Listed:
    """What holds for all rows of a source, whoever decodes them.

    Attributes:
        class_names: Names of the classes, in the order of the labels.
        positive_classes: Classes of the binary score.
        tag_names: Names of the tags.
        resize_shorter_side: Length that the shorter side of an image is reduced to, pixels.
        warnings: What the owner of the data should know.
        listed: How many rows there are.
        listing_sha256: Hash of all ids and labels in their order, by which shards know that they read the same.
        contradicting: Rows whose text contradicts their class, `documents.Contradicting`.
    """

    class_names: list[str]
    positive_classes: list[str]
    tag_names: list[str]
    resize_shorter_side: int
    warnings: list[str]
    listed: int
    listing_sha256: str
    contradicting: JsonDict

    @staticmethod
    def hash_of(rows: Iterable[Row]) -> str:
        """The hash of rows for `listing_sha256`."""
        return sha256_bytes(canonical_json([[row.id, row.label] for row in rows]))


@dataclass(frozen=True)
class Part:
    """What one shard has made, or all of them together.

    Attributes:
        listed: What holds for all rows.
        table: A row for each of its images, as in the index.
        rejects: Id and reason of each of its images that cannot be used.
        sha256s: Of parts that were joined, the SHA-256 of each one's file.
        shown: The first rejects with what can be seen of them, for the data report.
    """

    listed: Listed
    table: Any
    rejects: list[tuple[str, str]]
    sha256s: list[str] = field(default_factory=list)
    shown: list[JsonDict] = field(default_factory=list)


def write_part(path: str | Path, part: Part, shard: Shard) -> str:
    """Write a shard's part and give its file's SHA-256."""
    body = {
        **vars(part.listed),
        "rows": part.table.num_rows,
        "shard": shard.number,
        "shards": shard.count,
        "rejects": [{"id": name, "reason": reason} for name, reason in part.rejects],
        "shown": part.shown,
    }
    return write_index(path, part.table, part.listed.tag_names, body, artifact="part")


def read_parts(paths: Sequence[str]) -> Part:
    """Read the parts of all shards, in any order, and join them in the order of the rows.

    Raises:
        ContractError: If one cannot be read, is missing or there twice, or two have listed different rows.
    """
    opened = sorted((read_index(path, artifact="part") for path in paths), key=lambda part: part.document["shard"])
    numbers = [part.document["shard"] for part in opened]
    count = opened[0].document["shards"] if opened else 0
    if numbers != list(range(1, count + 1)):
        raise ContractError(f"the parts of shards 1 to {count} are needed, each once, got those of {numbers}")
    listed = [Listed(**{key: part.document[key] for key in Listed.__dataclass_fields__}) for part in opened]
    for number, other in enumerate(listed, 1):
        for key, value in vars(other).items():
            if value != (first := getattr(listed[0], key)):
                raise ContractError(
                    f"shard {number} of {count} has read other data than shard 1, {key} is {value!r} and {first!r}: "
                    "the data changed while it was read; run again when nothing is written there"
                )
    return Part(
        listed[0],
        pa.concat_tables([part.table() for part in opened]).combine_chunks(),
        [(each["id"], each["reason"]) for part in opened for each in part.document["rejects"]],
        [part.sha256 for part in opened],
        [each for part in opened for each in part.document["shown"]][:REJECTS],
    )


def require_usable(part: Part, max_reject_fraction: float) -> None:
    """Refuse a whole set of which too many images, or all of a class, cannot be used.

    Raises:
        DataError: With how many or the class, and the first of the images.
    """
    rejects, count = part.rejects, part.listed.listed
    first = "; ".join(f"{name}: {reason}" for name, reason in rejects[:EXAMPLES])
    if len(rejects) > max_reject_fraction * count:
        raise DataError(
            f"{len(rejects)} of {count} images cannot be used, more than data.max_reject_fraction "
            f"{max_reject_fraction:g}: {first}"
        )
    for name, images in counts(part).items():
        if not images:
            raise DataError(
                f"class {name} has no usable image"
                + (f"; {len(rejects)} of {count} cannot be used: {first}" if first else "")
            )


def counts(part: Part) -> dict[str, int]:
    """Images of each class, in the order of the labels; those without a label are in none."""
    found = Counter(part.table.column("label").to_pylist())
    return {name: found[label] for label, name in enumerate(part.listed.class_names)}


def contradicting(part: Part) -> list[str]:
    """A line when equal pixels stand under two classes."""
    ids, pixels, labels = (part.table.column(name).to_pylist() for name in ("id", "sha256", "label"))
    names = part.listed.class_names
    labelled = [each for each in zip(ids, pixels, labels, strict=True) if each[2] is not None]
    return contradictions([(name, sha256, names[label]) for name, sha256, label in labelled])


def write_whole(path: str | Path, part: Part) -> str:
    """Write the index of a whole set, its warnings those of `part`, and give its file's SHA-256."""
    listed = part.listed
    body: JsonDict = {
        "class_names": listed.class_names,
        "positive_classes": listed.positive_classes,
        "rows": part.table.num_rows,
        "rejected": len(part.rejects),
        "rejects": part.shown,
        "contradicting": listed.contradicting,
        "counts": counts(part),
        "warnings": listed.warnings,
        "resize_shorter_side": listed.resize_shorter_side,
        "fingerprint": fingerprint(part),
        "content_fingerprint": content_fingerprint(
            {name: part.table.column(name).to_pylist() for name in CONTENT_COLUMNS}, listed.class_names
        ),
    }
    return write_index(path, part.table, listed.tag_names, body | ({"parts": part.sha256s} if part.sha256s else {}))


def with_warnings(part: Part, warnings: Sequence[str]) -> Part:
    """The part with more warnings."""
    return replace(part, listed=replace(part.listed, warnings=[*part.listed.warnings, *warnings]))


def fingerprint(part: Part) -> str:
    """SHA-256 of the classes and, by rising id, of each image's id, pixels, class, facts and tags."""
    columns = {name: part.table.column(name).to_pylist() for name in ("id", "sha256", "label", *FACTS)}
    tags = part.table.column("tags").to_pylist() if part.listed.tag_names else [{}] * part.table.num_rows
    names: dict[int | None, str | None] = {None: None, **dict(enumerate(part.listed.class_names))}
    identities = [
        (
            *(columns["id"][row], columns["sha256"][row], names[columns["label"][row]]),
            {name: columns[name][row] for name in FACTS} | {"tags": tags[row]},
        )
        for row in sorted(range(part.table.num_rows), key=columns["id"].__getitem__)
    ]
    return sha256_bytes(canonical_json([part.listed.class_names, part.listed.positive_classes, identities]))


def part_of(
    listed: Listed, rows: Sequence[dict[str, Any]], rejects: list[tuple[str, str]], shown: list[JsonDict]
) -> Part:
    """The part of the images whose rows of the index are given."""
    return Part(listed, index_table(rows, listed.tag_names), rejects, shown=shown)
