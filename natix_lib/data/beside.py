"""Tables that lie beside the images: which files name images of the set, and what they are taken for.

A file that names images is never passed over. Its first rows are searched for names of images that are there, so that
a README or a list of weights counts for nothing, whatever it is called.
"""

import re
import zlib
from dataclasses import replace
from pathlib import Path

from natix_lib.config import Columns
from natix_lib.data.listing import IMAGE_SUFFIXES, Listing, role_of_folders, role_of_name
from natix_lib.data.rows import readable, some
from natix_lib.data.tables import BOOKS, TABLES, Table, as_written, read_table, require_columns
from natix_lib.errors import DataError

NOTES = (".txt", ".xml", ".yaml", ".yml")  # text that can name images and is not read
HEAD = 1 << 22  # bytes searched for the name of an image: rows enough for any preface, a second or two
LOOKED_INTO = 100  # tables and notes below the top; more are files of single images, and each costs a read
_SUFFIXES = "|".join(sorted(map(re.escape, IMAGE_SUFFIXES), key=len, reverse=True))
_SUFFIX = re.compile(rf"(?:{_SUFFIXES})".encode(), re.IGNORECASE)
_BEFORE_NAME = re.compile(rb"[\s\"',;|/\\<>:=]")  # what stands before an image's name, and may stand in it


def not_taken(listing: Listing, path: Path, columns: Columns) -> str:
    """Why a table that lies where the set's table would was not taken for it."""
    try:
        table = read_table(listing.root, path, columns)
        if not table.records:
            return f"{table.name} has no row"
        require_columns(table.name, table.header, table.nested, columns)
    except DataError as error:
        return str(error)
    return f"{table.name} names no image of the set"


def naming_too(listing: Listing, read: list[Path]) -> list[Path]:
    """Tables that name images of the set beside those that are read."""
    others = [path for path in listing.files if path.name.lower().endswith(TABLES) and path not in read]
    read_folders = {path.as_posix() for path in read}
    return [
        path for path in others if may_list(path) and path.parts[0] not in read_folders and _names_images(listing, path)
    ]


def lists(root: Path, path: Path, columns: Columns) -> bool:
    """Whether a table has a column of images and one of labels; one that cannot be read may have them."""
    try:
        table = read_table(root, path, columns)
        these = as_written(table.name, table.header, columns)
    except DataError:
        return True
    return {these.image, these.label} <= set(table.header)


def tables_beside(listing: Listing, columns: Columns) -> list[Table]:
    """The table that lists the images where these lie in one folder, at the top, or in folders of split roles.

    There may be one for each split role, which its name or its folder gives: train.csv, instances_val2017.json.

    Raises:
        DataError: If a file names images of the set and cannot be taken for that table.
    """
    naming = [path for path in listing.files if may_list(path) and _names_images(listing, path)]
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
        tables.append(replace(placed(listing, table, columns), role=role))
    return tables


def _role_of_table(path: Path) -> str | None:
    """The role by the folder of a table, its name, or its last word: train/labels.csv, instances_val.json."""
    stem = path.name.partition(".")[0]
    return role_of_folders(path.parts[:-1]) or role_of_name(stem) or role_of_name(stem.rpartition("_")[2])


def placed(listing: Listing, table: Table, columns: Columns) -> Table:
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


def may_list(path: Path) -> bool:
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


def passed_over(listing: Listing) -> list[str]:
    """A line when files below the top, where no table is looked for, name images of the set.

    A file named as an image, such as 0.json beside 0.jpg, is about that image and lists none.
    """
    stems = {image.stem for image in listing.images}
    below = [
        path
        for path in listing.files
        if not may_list(path) and path.stem not in stems and path.name.lower().endswith((*TABLES, *NOTES))
    ]
    naming = [path for path in below[:LOOKED_INTO] if _names_images(listing, path)]
    if not naming:
        return []
    return [
        f"{some(naming)} may list the images of the set and is not read, folders are read as classes: set "
        "data.manifest to it if it holds their labels"
    ]
