"""WebDataset: tar files in which the files of one key, side by side, are one image and what is known of it.

`0001.jpg` with `0001.cls`, `0001.json` or `0001.txt`. Read with tarfile, as a stream and never unpacked: once for the
facts, once for the images. The label is the column of the JSON, else the .cls, else the .txt; `data.columns.label` may
name cls or txt. An index in the .cls beside a name in the JSON is one label written twice, as long as each index has
one name and each name one index.
"""

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from natix_lib.config import Columns, DataSource
from natix_lib.data.archives import TARS, one_line, tar_members
from natix_lib.data.decode import MAX_FILE_BYTES
from natix_lib.data.json_tables import unique
from natix_lib.data.listing import IMAGE_SUFFIXES, Listing, is_hidden, refuse_copies, role_of_file
from natix_lib.data.rows import Row, Source, readable, refuse_repeats, row_of, some, whole_number, with_role
from natix_lib.data.tables import as_written, free_columns, near_warnings, nested_warning, require_named_columns
from natix_lib.errors import DataError

KEY = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # up to the first dot of the file's name, as webdataset divides it
LABELS = ("cls", "txt")
TEXTS = ("json", *LABELS)
LOOKED_AT = 2_000  # members in which the first samples must show
MOST_TEXT = 1 << 20  # bytes of a label or of the JSON of one image


@dataclass
class Sample:
    """The files of one key.

    Attributes:
        key: What their names have in common, with folders.
        images: What stands after the key in an image's name, and its bytes; none where they were not asked for.
        texts: Content of the small files, by what stands after the key.
        others: What stands after the key in the names of all other files.
    """

    key: str
    images: dict[str, bytes | DataError] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def holds_samples(path: Path) -> bool:
    """Whether a tar holds images with labels of the same key, by its first members.

    Raises:
        DataError: If it is no tar, or may as well be a folder of classes whose images have notes of their own.
    """
    ends: dict[str, set[str]] = {}
    name = readable(path.name)
    with one_line(f"archive {name}"), tarfile.open(path) as tar:
        for _, member in zip(range(LOOKED_AT), iter(tar.next, None), strict=False):
            match = KEY.fullmatch(member.name)
            if member.isreg() and match and not _is_left_out(member.name):
                ends.setdefault(match[1], set()).add(match[2].lower())
            tar.members.clear()  # type: ignore[attr-defined]
    samples = {key: these for key, these in ends.items() if any(map(_is_image, these)) and these & set(TEXTS)}
    if not samples or any("cls" in these for these in samples.values()):
        return bool(samples)
    folders = sorted({key.rpartition("/")[0].removeprefix("./") for key in samples})
    if len(folders) > 1:
        raise DataError(
            f"{name} may be a shard of WebDataset, a .json or .txt beside each image, or an archive of the folders "
            f"{some(folders)}: set data.format to webdataset, or to folder to unpack it"
        )
    return True


def from_shards(listing: Listing, settings: DataSource) -> Source:
    """Rows of all shards of a folder, and their images.

    Raises:
        DataError: If a shard is damaged or cut off, a key comes up twice, or an image's facts break a rule.
    """
    paths, columns = listing.with_suffix(*TARS), settings.columns
    if not paths:
        raise DataError(f"data.data_root {listing.place} has no shard of WebDataset: {', '.join(TARS)}")
    refuse_copies(paths)
    rows: list[Row] = []
    places: list[str] = []
    headers: dict[str, list[str]] = {}
    nested: dict[str, str] = {}
    lost: Counter[str] = Counter()
    bare: list[str] = []
    ways: dict[tuple[str, str], tuple[str, str]] = {}
    for path in paths:
        name, role = readable(path.as_posix()), role_of_file(path)
        header: dict[str, None] = {}
        for sample in _samples(listing.root / path, name, columns, with_images=False):
            place = f"{name}: {readable(sample.key)}"
            lost.update(sample.others)
            if not sample.images:
                bare.append(place)
                continue
            record, lists = _record(sample, columns, place)
            nested |= lists
            header |= dict.fromkeys(record)
            these = as_written(place, list(record), columns)
            these = these.model_copy(update={"label": _label_column(record, columns, these, place, ways)})
            row = row_of(f"{name}#{readable(sample.key)}", record, free_columns(list(record), these), these, place)
            rows.append(with_role(row, role, place, "its shard's name"))
            places.append(place)
        headers[name] = list(header)
    require_named_columns({name: [*header, *nested] for name, header in headers.items()}, _without_image(columns))
    refuse_repeats(rows, places)

    def images() -> Iterator[bytes | DataError]:
        for path in paths:
            samples = _samples(listing.root / path, readable(path.as_posix()), columns, with_images=True)
            yield from (_chosen(sample, columns) for sample in samples if sample.images)

    warnings = [*listing.left_out(paths), *nested_warning(nested), *near_warnings(headers, columns)]
    if bare:
        warnings.append(f"left out {len(bare)} samples without an image: {some(bare)}")
    if lost:
        counted = some(f".{end} {count}" for end, count in lost.most_common())
        warnings.append(f"left out files of samples that are neither image, .cls, .json nor .txt: {counted}")
    return Source(rows, images, f"in {some(headers)}, shards of WebDataset", warnings=warnings)


def _without_image(columns: Columns) -> Columns:
    """The columns; that of the image names a suffix here and none of a record."""
    return columns.model_copy(update={"image": Columns().image})


def _samples(path: Path, name: str, columns: Columns, with_images: bool) -> Iterator[Sample]:
    """The samples of a shard, each once, in order."""
    seen: set[str] = set()
    sample: Sample | None = None
    with one_line(f"shard {name}"), tarfile.open(path) as tar:
        for member in tar_members(tar):
            match = KEY.fullmatch(member.name)
            if member.isdir() or _is_left_out(member.name):
                continue
            if not member.isreg() or match is None:
                raise ValueError(f"{member.name} is no file with a key and a suffix")
            if sample is None or match[1] != sample.key:
                if sample:
                    yield sample
                if match[1] in seen:
                    raise ValueError(f"the files of {match[1]} do not stand side by side, or come twice")
                seen.add(match[1])
                sample = Sample(match[1])
            _add(sample, tar, member, match[2].lower(), with_images)
            if len(sample.images) > 1:
                _chosen(sample, columns)
    if sample:
        yield sample


def _add(sample: Sample, tar: tarfile.TarFile, member: tarfile.TarInfo, end: str, with_images: bool) -> None:
    if end in sample.texts or end in sample.images:
        raise ValueError(f"{member.name} stands in it twice")
    stream: Any = tar.extractfile(member)
    if end in TEXTS:
        if member.size > MOST_TEXT:
            raise ValueError(f"{member.name} has {member.size} bytes, and a label or its facts at most {MOST_TEXT}")
        sample.texts[end] = stream.read()
    elif not _is_image(end):
        sample.others.append(readable(end))
    elif member.size > MAX_FILE_BYTES:
        sample.images[end] = DataError(f"{member.size} bytes are more than an image may have, {MAX_FILE_BYTES}")
    else:
        sample.images[end] = stream.read() if with_images else b""


def _chosen(sample: Sample, columns: Columns) -> bytes | DataError:
    """The one image of a sample, or the one whose suffix the config names."""
    ends = list(sample.images)
    end = columns.image.lower() if len(ends) > 1 else ends[0]
    if end not in sample.images:
        raise ValueError(
            f"{sample.key} has the images {some(ends)}: set data.columns.image to the suffix of the one that counts"
        )
    return sample.images[end]


def _record(sample: Sample, columns: Columns, place: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What the small files of a sample say by column, and the types of what is no plain cell."""
    texts: dict[str, Any] = {}
    try:
        for end, content in sample.texts.items():
            texts[end] = content.decode("utf-8-sig").strip()
            if "\0" in texts[end]:
                raise ValueError("it holds a NUL byte")
            if end == "cls" and texts[end].isascii() and texts[end].isdecimal():
                texts[end] = whole_number(texts[end])
        end = "json"
        facts = json.loads(texts.pop(end, "{}"), object_pairs_hook=unique, parse_int=whole_number)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: its .{end} cannot be read: {error}") from error
    if not isinstance(facts, dict):
        raise DataError(f"{place}: its .json must be an object, it is {type(facts).__name__}")
    twice = sorted(texts.keys() & facts.keys())
    if twice and any(str(facts[key]) != str(texts[key]) for key in twice):
        raise DataError(f"{place}: its .{twice[0]} and {twice[0]!r} in its .json differ")
    record = {readable(key): value for key, value in {**facts, **texts}.items()}
    lists = {key: type(value).__name__ for key, value in record.items() if isinstance(value, list | dict)}
    label = as_written(place, list(record), columns).label
    if label in lists:
        raise DataError(f"{place}: column {label} (data.columns.label) must hold text or numbers, it is {lists[label]}")
    return {key: value for key, value in record.items() if key not in lists}, lists


def _label_column(
    record: dict[str, Any], columns: Columns, these: Columns, place: str, ways: dict[tuple[str, str], tuple[str, str]]
) -> str:
    """The column that holds the label: the config's, else cls, else txt.

    Args:
        record: What the sample says.
        columns: As the config names them.
        these: As the sample writes them.
        place: Where the sample stands, for messages.
        ways: Label in the JSON to label in the .cls, and back, with the place of the first of each; added to.

    Raises:
        DataError: If .cls and JSON give labels that are not one in two ways.
    """
    given = [name for name in (these.label, *LABELS) if record.get(name) not in (None, "")]
    if columns.label != Columns().label or not given:
        return these.label
    if given[:2] == [these.label, "cls"]:
        pair = str(record[these.label]), str(record["cls"])
        for way, text, other in (("json", pair[0], pair[1]), ("cls", pair[1], pair[0])):
            before, first = ways.setdefault((way, text), (other, place))
            if before != other:
                raise DataError(
                    f"{place} is {pair[1]!r} by its .cls and {pair[0]!r} by its .json, but {first} has {text!r} with "
                    f"{before!r}: set data.columns.label to cls, or take the .cls out"
                )
        del record["cls"]
    return given[0]


def _is_image(end: str) -> bool:
    return f".{end.rpartition('.')[2]}" in IMAGE_SUFFIXES


def _is_left_out(name: str) -> bool:
    return any(is_hidden(part) for part in name.removeprefix("./").split("/"))
