"""Which of the layouts a data set has: tables, files that hold images, or a folder for each class.

`data.format: auto` takes what can be read in one way only, in this order: manifest.*, metadata.* (Hugging Face's
imagefolder), a folder that `save_to_disk` wrote, Parquet that holds images, shards of WebDataset, one table beside the
images of one folder or one for each split role, folders of classes. A table that names images of the set and is none
of these is never passed over: the refusal, or a warning, names it. Facts are read first, images
are then streamed one after another, so that a set larger than memory can be read.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from natix_lib.config import Columns, DataSource
from natix_lib.data.archives import ARCHIVES, TARS, refuse_several
from natix_lib.data.folders import read_folders
from natix_lib.data.listing import IMAGE_SUFFIXES, Listing, list_folder, role_of_folders, role_of_name
from natix_lib.data.rows import EXAMPLES, FILE_NAME, Source, readable, some
from natix_lib.data.shards import from_shards, holds_samples
from natix_lib.data.tables import (
    BOOKS,
    TABLES,
    Table,
    as_written,
    from_tables,
    read_table,
    require_columns,
    require_named_columns,
)
from natix_lib.errors import DataError

NOTES = (".txt", ".xml", ".yaml", ".yml")  # text that can name images and is not read
HEAD = 1 << 22  # bytes searched for the name of an image: rows enough for any preface, a second or two
SAVED = ("state.json", "dataset_dict.json")  # what datasets.save_to_disk writes beside its Arrow files
LOOKED_INTO = 100  # tables and notes below the top; more are files of single images, and each costs a read
_SUFFIXES = "|".join(sorted(map(re.escape, IMAGE_SUFFIXES), key=len, reverse=True))
_SUFFIX = re.compile(rf"(?:{_SUFFIXES})".encode(), re.IGNORECASE)
_BEFORE_NAME = re.compile(rb"[\s\"',;|/\\<>:=]")  # what stands before an image's name, and may stand in it


def open_source(root: Path, settings: DataSource) -> Source:
    """Read the facts of a data set and get ready to stream its images.

    Args:
        root: The local folder of `settings.data_root`.
        settings: Format, columns, manifest and class names.

    Raises:
        DataError: If nothing readable is there, it can be read in two ways, a column is missing, or a fact breaks its
            rule.
    """
    listing = list_folder(root, settings.data_root)
    if not listing.files and not listing.hidden and not listing.broken:
        raise DataError(f"data.data_root {listing.place} is empty")
    source = _read(listing, settings)
    if not source.rows:
        raise DataError(f"data.data_root {listing.place} lists no image")
    return source


def _read(listing: Listing, settings: DataSource) -> Source:
    if settings.manifest:
        return _from_manifest(listing, settings)
    if settings.format in LAYOUTS:
        return LAYOUTS[settings.format](listing, settings)
    columns = settings.columns
    tars, archives = listing.with_suffix(*TARS), listing.with_suffix(*ARCHIVES)
    if _manifests(listing) or _metadata(listing):
        if not listing.images:
            refuse_several(archives, listing.place)
        return _from_manifest(listing, settings)
    if _is_saved(listing):
        return _from_saved(listing, settings)
    if listing.parquet and (not listing.images or _holds_images(listing, columns)):
        return _from_parquet(listing, settings)
    if not listing.images:
        if tars and holds_samples(listing.root / tars[0]):
            return from_shards(listing, settings)
        refuse_several(archives, listing.place)
    if tables := _tables_beside(listing, columns):
        source = from_tables(listing, tables, columns, roles=True)
        is_read = (
            "is read as the manifest" if len(tables) == 1 else "are read as the manifest, a table for each split role"
        )
        source.warnings.insert(0, f"{some(table.name for table in tables)} {is_read}")
        return source
    try:
        source = _from_folders(listing, settings)
        source.warnings.extend(_passed_over(listing))
        return source
    except DataError as error:
        others = [path for path in listing.files if _may_list(path)]
        if not others:
            raise
        reasons = [f"{_not_taken(listing, path, columns)}; " for path in listing.with_suffix(*TABLES) if path in others]
        raise DataError(
            f"{error}; {''.join(reasons[:EXAMPLES])}a table among {some(others)} is read when data.manifest names it"
        ) from error


def _not_taken(listing: Listing, path: Path, columns: Columns) -> str:
    """Why a table that lies where the set's table would was not taken for it."""
    try:
        table = read_table(listing.root, path, columns)
        if not table.records:
            return f"{table.name} has no row"
        require_columns(table.name, table.header, table.nested, columns)
    except DataError as error:
        return str(error)
    return f"{table.name} names no image of the set"


def _from_parquet(listing: Listing, settings: DataSource) -> Source:
    from natix_lib.data.parquet import from_parquet  # pyarrow is no need of other layouts

    if not listing.parquet:
        raise DataError(f"data.data_root {listing.place} has no .parquet file")
    return from_parquet(listing, listing.parquet, settings.columns)


def _is_saved(listing: Listing) -> bool:
    """Whether a state.json stands beside Arrow files, as `datasets.save_to_disk` writes them."""
    return bool(listing.with_suffix(".arrow")) and any(path.name in SAVED for path in listing.files)


def _from_saved(listing: Listing, settings: DataSource) -> Source:
    from natix_lib.data.saved import from_saved  # pyarrow

    return from_saved(listing, settings.columns)


def _holds_images(listing: Listing, columns: Columns) -> bool:
    from natix_lib.data.parquet import holds_images

    return holds_images(listing.root, listing.parquet[0], columns)


def _from_folders(listing: Listing, settings: DataSource) -> Source:
    source = read_folders(listing, settings.class_names)
    require_named_columns({}, settings.columns)
    return source


def _manifests(listing: Listing) -> list[Path]:
    """manifest.csv and its like at the top; a folder manifest.parquet of part files counts as one."""
    tops = {path.parts[0] if path.name.lower().endswith(".parquet") else path.as_posix() for path in listing.files}
    names = {f"manifest{suffix}" for suffix in TABLES}
    return [Path(name) for name in sorted(tops) if name.lower() in names]


def _metadata(listing: Listing) -> list[Path]:
    """metadata.csv and its like, in any folder."""
    names = {f"metadata{suffix}" for suffix in TABLES}
    return [path for path in listing.files if path.name.lower() in names]


def _from_manifest(listing: Listing, settings: DataSource) -> Source:
    root, columns = listing.root, settings.columns
    if settings.manifest:
        path = Path(settings.manifest)
        if not (root / path).exists():
            raise DataError(f"data.manifest {settings.manifest} does not exist in {listing.place}")
        if (root / path).is_dir() and not path.name.lower().endswith(".parquet"):
            raise DataError(f"data.manifest {settings.manifest} is a folder: name a file")
        return from_tables(listing, [_placed(listing, read_table(root, path, columns), columns)], columns, roles=False)
    manifests, metadata = _manifests(listing), _metadata(listing)
    naming = _naming_too(listing, manifests or metadata) if manifests or metadata else []
    rivals = [path for path in naming if _lists(root, path, columns)]
    if len(manifests) > 1 or rivals:
        raise DataError(
            f"data.data_root {listing.place} has {some([*(manifests or metadata), *rivals])}: name one as data.manifest"
        )
    source = None
    if manifests:
        source = from_tables(
            listing, [_placed(listing, read_table(root, manifests[0], columns), columns)], columns, False
        )
    elif metadata:
        source = _from_metadata(listing, metadata, columns)
    if source:
        if naming:
            source.warnings.append(
                f"{some(naming)} names images too and is not read: set data.manifest to it if it should"
            )
        return source
    if tables := _tables_beside(listing, columns):
        return from_tables(listing, tables, columns, roles=True)
    raise DataError(f"data.data_root {listing.place} has neither manifest.csv nor manifest.parquet: set data.manifest")


def _from_metadata(listing: Listing, metadata: list[Path], columns: Columns) -> Source:
    """Hugging Face's imagefolder: a table in the folder of each split, or one at the top."""
    tables = [read_table(listing.root, path, columns) for path in metadata]
    for table in tables:
        these = as_written(table.name, [*table.header, *table.nested], columns)
        image = these.image if these.image in [*table.header, *table.nested] else FILE_NAME
        for key, column in (("image", image), ("label", these.label)):
            if column not in {*table.header, *table.nested}:
                raise DataError(
                    f"{table.name} has no column {column!r}; it has {', '.join(table.header[:12])}: name the column as "
                    f"data.columns.{key}, or set data.format to folder or parquet if it does not list images and labels"
                )
    source = from_tables(listing, tables, columns, roles=True)
    listed = {row.id.partition("/")[0] for row in source.rows}
    for path in listing.images:
        if len(path.parts) > 1 and path.parts[0] not in listed:
            count = sum(other.parts[0] == path.parts[0] for other in listing.images)
            raise DataError(
                f"folder {path.parts[0]} holds {count} images, the first is {path}, and {some(metadata)} names none of "
                "them: add their rows, or list all images in a manifest.csv"
            )
    return source


def _naming_too(listing: Listing, read: list[Path]) -> list[Path]:
    """Tables that name images of the set beside those that are read."""
    others = [path for path in listing.files if path.name.lower().endswith(TABLES) and path not in read]
    read_folders = {path.as_posix() for path in read}
    return [
        path
        for path in others
        if _may_list(path) and path.parts[0] not in read_folders and _names_images(listing, path)
    ]


def _lists(root: Path, path: Path, columns: Columns) -> bool:
    """Whether a table has a column of images and one of labels; one that cannot be read may have them."""
    try:
        table = read_table(root, path, columns)
        these = as_written(table.name, table.header, columns)
    except DataError:
        return True
    return {these.image, these.label} <= set(table.header)


def _tables_beside(listing: Listing, columns: Columns) -> list[Table]:
    """The table that lists the images where these lie in one folder, at the top, or in folders of split roles.

    There may be one for each split role, which its name or its folder gives: train.csv, instances_val2017.json.

    Raises:
        DataError: If a file names images of the set and cannot be taken for that table.
    """
    naming = [path for path in listing.files if _may_list(path) and _names_images(listing, path)]
    parts = {path.parts[0] for path in listing.with_suffix(".parquet") if len(path.parts) > 1}
    naming += [Path(name) for name in sorted(parts) if name.lower().endswith(".parquet")]
    if not naming:
        return []
    tops = sorted({path.parts[0] for path in listing.images if len(path.parts) > 1})
    is_plain = len(tops) < 2 or (all(map(role_of_name, tops)) and all(len(path.parts) == 2 for path in listing.images))
    choice = "set data.manifest to it with data.columns, or data.format: folder to read folders as classes"
    roles = [_role_of_table(path) for path in naming] if len(naming) > 1 else [None]
    is_one = len(naming) == 1 or (None not in roles and len(set(roles)) == len(roles))
    if not is_one or not is_plain or not all(path.name.lower().endswith(TABLES) for path in naming):
        beside = f"folders {some(tops)}" if tops else "the images"
        raise DataError(f"{some(naming)} beside {beside} may list the images: {choice}")
    tables = []
    for path, role in zip(naming, roles, strict=True):
        try:
            table = read_table(listing.root, path, columns)
        except DataError as error:
            raise DataError(f"{error}; it may list the images: mend it, or {choice}") from error
        these = as_written(table.name, table.header, columns)
        if not {these.label, these.image} <= set(table.header):
            raise DataError(
                f"{table.name} may list the images, but has no columns {columns.image!r} and {columns.label!r}; it has "
                f"{', '.join(table.header[:12])}: {choice}"
            )
        tables.append(replace(_placed(listing, table, columns), role=role))
    return tables


def _role_of_table(path: Path) -> str | None:
    """The role by the folder of a table, its name, or its last word: train/labels.csv, instances_val.json."""
    stem = path.name.partition(".")[0]
    return role_of_folders(path.parts[:-1]) or role_of_name(stem) or role_of_name(stem.rpartition("_")[2])


def _placed(listing: Listing, table: Table, columns: Columns) -> Table:
    """The table, and the folder that the names of its images start from.

    That is data.data_root where a name leads to an image from there, else the table's own folder, else the one folder
    that holds all images, or all of the role that the table's name gives.
    """
    if not listing.images:
        return table
    image = as_written(table.name, table.header, columns).image
    role = _role_of_table(Path(table.name))
    own = Path(table.name).parent
    parents = {path.parent for path in listing.images}
    of_role = {path.parent for path in listing.images if role and role_of_folders(path.parts[:-1]) == role}
    folders = [Path(), own, *(next(iter(these)) for these in (parents, of_role) if len(these) == 1)]
    images = {readable(path.as_posix()) for path in listing.images}
    for folder in folders:
        above = f"{readable(folder.as_posix())}/" if folder.parts else ""
        if any(above + str(record.get(image)).removeprefix("./") in images for record in table.records):
            return replace(table, folder=folder)
    return table


def _may_list(path: Path) -> bool:
    """Whether a file lies where tables of the set lie: at the top, in a folder of a split role, or in annotations/."""
    at = len(path.parts) == 1 or (
        len(path.parts) == 2 and (role_of_name(path.parts[0]) is not None or path.parts[0].lower() == "annotations")
    )
    return at and path.name.lower().endswith((*TABLES, *NOTES, *BOOKS))


def _names_images(listing: Listing, path: Path) -> bool:
    """Whether the first rows of a file name images of the set; a workbook or Parquet cannot be looked into so."""
    name = path.name.lower()
    if name.endswith((".parquet", ".xlsx", ".xls", ".ods")):
        return True
    if name.endswith(BOOKS):
        return False
    try:
        with (listing.root / path).open("rb") as file:
            head = file.read(HEAD)
        if name.endswith(".gz"):
            head = zlib.decompressobj(wbits=31).decompress(head, HEAD)
    except (OSError, zlib.error):
        return False
    text = head.replace(b"\0", b"")
    longest = max(map(len, listing.image_names), default=0)
    for match in _SUFFIX.finditer(text):
        before = text[max(0, match.end() - longest - 1) : match.end()]  # the one more is no name
        starts = [0, *(mark.end() for mark in _BEFORE_NAME.finditer(before))]
        if any(before[start:] in listing.image_names for start in starts):
            return True
    return False


def _passed_over(listing: Listing) -> list[str]:
    """A line when files below the top, where no table is looked for, name images of the set.

    A file named as an image, such as 0.json beside 0.jpg, is about that image and lists none.
    """
    stems = {image.stem for image in listing.images}
    below = [
        path
        for path in listing.files
        if not _may_list(path) and path.stem not in stems and path.name.lower().endswith((*TABLES, *NOTES))
    ]
    naming = [path for path in below[:LOOKED_INTO] if _names_images(listing, path)]
    if not naming:
        return []
    return [
        f"{some(naming)} may list the images of the set and is not read, folders are read as classes: set "
        "data.manifest to it if it holds their labels"
    ]


LAYOUTS: dict[str, Callable[[Listing, DataSource], Source]] = {
    "manifest": _from_manifest,
    "parquet": _from_parquet,
    "arrow": _from_saved,
    "webdataset": from_shards,
    "folder": _from_folders,
}
"""What `data.format` names, beside auto."""
