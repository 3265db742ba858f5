"""A folder of images for each class, also below a folder for each split role.

Folder names are all that says what such a set means, so a layout that allows two readings is refused with what was
seen: split roles beside other folders, images at two depths, folder names that repeat below several folders, one folder
alone, folders called `images`, `docs` or `unlabeled`, and `train_none` beside `test_none`, since `test_track` may be a
class and names do not say which it is. Folders of split roles may lie above those of classes, or below all of them.
`data.class_names` decides: with it, the folders of these names are the classes at any depth, with split roles above or
below them, and images in no such folder are left out and said.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from natix_lib.data.listing import (
    IMAGE_SUFFIXES,
    ROLE_WORDS,
    UNREAD_SUFFIXES,
    Listing,
    role_of_folders,
    role_of_name,
    suffixes,
)
from natix_lib.data.rows import Row, Source, read_file, readable, some
from natix_lib.errors import DataError

KEY = "set data.class_names to the names of the class folders, or list the images in a manifest.csv"
# What people call folders that hold files of all classes, or none: never a class unless data.class_names says so.
STORES = {"images", "image", "imgs", "img", "pictures", "photos", "jpegimages", "frames", "masks", "mask", "labels"}
STORES |= {
    "annotations",
    "docs",
    "doc",
    "documentation",
    "assets",
    "figures",
    "thumbnails",
    "thumbs",
    "previews",
    "logs",
}

LONGER = tuple(IMAGE_SUFFIXES)  # x.jpg_large, x.jpeg~: what browsers and editors write
# Names of splits, folds and stages of labelling: no classes where all folders have such a name.
_BEFORE, _AFTER = r"(?:(?:data|dataset|images|imgs|set)[-_. ]?)?", r"(?:[-_. ]?(?:set|data|images|imgs|\d+))?"
_WITHOUT_LABEL = "(?:un|not|non)[-_. ]?(?:labell?ed|annotated)"
_PARTS = "|".join([*map(re.escape, ROLE_WORDS), "trn", "tst", _WITHOUT_LABEL, "labell?ed", "annotated"])
PART = re.compile(
    rf"{_BEFORE}(?:{_PARTS}|raw|processed){_AFTER}|(?:fold|part|split|batch|chunk|shard)[-_. ]?\d+", re.IGNORECASE
)
UNLABELLED = re.compile(rf"{_BEFORE}{_WITHOUT_LABEL}{_AFTER}", re.IGNORECASE)
_JOINT = re.compile(r"[-_. ]+")


@dataclass(frozen=True)
class Placed:
    """An image and what its folders say."""

    path: Path
    label: str
    role: str | None


def read_folders(listing: Listing, class_names: Sequence[str]) -> Source:
    """Read labels, and roles if there are any, from the names of folders.

    Args:
        listing: What lies in the data set's folder.
        class_names: Names of the class folders; empty takes the folders at the top, or those below split roles.

    Raises:
        DataError: If there is no image, or the folders can be read in two ways.
    """
    images = listing.images
    if not images:
        raise DataError(
            f"data.data_root {listing.place} has no manifest.csv, no manifest.parquet, no .parquet file and no folder "
            f"of images for each class; {_contents(listing)}"
        )
    lost = [path for path in listing.broken if path not in set(images)]
    if lost:
        target = (listing.root / lost[0]).readlink() if (listing.root / lost[0]).is_symlink() else "no file"
        raise DataError(f"{lost[0]} is a link to {target}, which does not exist: mend or remove it")
    placed = _by_names(listing, class_names) if class_names else _by_depth(listing)
    warnings = listing.left_out(image.path for image in placed)
    if not class_names:
        warnings += _without_image(listing, {image.label for image in placed})
    rows = [Row(readable(image.path.as_posix()), readable(image.label), given_split=image.role) for image in placed]

    def file(number: int) -> Path:
        return listing.root / placed[number].path

    def contents() -> Iterator[bytes | DataError]:
        return (read_file(file(number)) for number in range(len(rows)))

    roles = {role_of_name(image.path.parts[0]) is None for image in placed if image.role}
    layout = "in a folder for each class" + (
        f", {'above' if True in roles else 'below'} folders of splits" if roles else ""
    )
    return Source(rows, contents, layout, file, warnings=warnings)


def _contents(listing: Listing) -> str:
    """What a folder without images holds."""
    if not listing.files:
        return f"it holds no file but {some(listing.hidden)}" if listing.hidden else "it holds no file"
    return f"it holds {len(listing.files)} files ({suffixes(listing.files)}): {some(listing.files)}"


def _by_names(listing: Listing, class_names: Sequence[str]) -> list[Placed]:
    """Images in folders named as classes, or by their numbers."""
    images = listing.images
    folders = sorted({readable(name) for path in images for name in path.parts[:-1]})
    if links := [path for path in listing.repeated if readable(path.name) in set(class_names) - set(folders)]:
        raise DataError(
            f"{some(links)} of data.class_names only links to what is read under another name: give data.class_names "
            "the name of that folder, or remove the link"
        )
    names = set(class_names) & set(folders) or {str(number) for number in range(len(class_names))}
    placed = []
    for path in images:
        levels = [level for level, name in enumerate(path.parts[:-1]) if readable(name) in names]
        if len(levels) > 1:
            raise DataError(f"{path} lies in two folders of data.class_names: {some(path.parts[i] for i in levels)}")
        if levels:
            above = path.parts[: levels[0]]
            placed.append(Placed(path, path.parts[levels[0]], _one_role(path, above, path.parts[levels[0] + 1 : -1])))
    if not placed:
        raise DataError(
            f"none of data.class_names {', '.join(class_names)} is a folder of images; folders are "
            f"{some(folders) or 'none'}"
        )
    return placed


def _one_role(path: Path, above: Sequence[str], below: Sequence[str]) -> str | None:
    """The role by the folders above or below the class."""
    roles = [role_of_folders(above), role_of_folders(below)]
    if None not in roles and roles[0] != roles[1]:
        raise DataError(f"{path} is {roles[0]} by a folder above its class and {roles[1]} by one below: rename one")
    return roles[0] or roles[1]


def _by_depth(listing: Listing) -> list[Placed]:
    """Images in the folders at the top, or in those below split roles."""
    images = listing.images
    flat = [path for path in images if len(path.parts) == 1]
    tops = Counter(path.parts[0] for path in images if len(path.parts) > 1)
    if flat:
        raise DataError(
            f"{len(flat)} images lie directly in data.data_root, the first is {flat[0]}, "
            + (f"beside {_counted(tops)}: " if tops else "so no folder names their class: ")
            + KEY
        )
    if placed := _split_in_class(listing):
        return placed
    roles = {top: role_of_name(top) for top in tops}
    others = Counter({top: count for top, count in tops.items() if not roles[top]})
    if others and len(others) < len(tops):
        raise DataError(
            f"{_counted(tops)}: {some(sorted(set(tops) - set(others)))} name split roles and "
            f"{some(sorted(others))} none; move what is no image of the set away, or {KEY}"
        )
    level = 0 if others else 1
    _refuse_lost_classes(listing.files, images, level)
    for path in images:
        if len(path.parts) < level + 2:
            raise DataError(
                f"{_counted(tops)} name split roles and hold images without a class folder, the first is {path}: add "
                f"folders of classes, a metadata.csv with file_name and label, or a manifest.csv"
            )
    _refuse_other_readings(images, level, listing.repeated)
    return [Placed(path, path.parts[level], roles[path.parts[0]]) for path in images]


def _split_in_class(listing: Listing) -> list[Placed]:
    """Images in folders of split roles below those of classes; none where a folder is no such."""
    tops = {path.parts[0] for path in listing.images}
    if len(tops) < 2 or any(map(role_of_name, tops)):
        return []
    roles = [role_of_name(path.parts[1]) if len(path.parts) > 2 else None for path in listing.images]
    if None in roles:
        return []
    without = [Path(path.parts[0], *path.parts[2:]) for path in listing.images]
    _refuse_lost_classes(listing.files, listing.images, 0)
    _refuse_other_readings(without, 0, listing.repeated)
    return [Placed(path, path.parts[0], role) for path, role in zip(listing.images, roles, strict=True)]


def _without_image(listing: Listing, classes: set[str]) -> list[str]:
    """A line when folders at the top, or below split roles, hold no image and so give no class."""
    used = {folder for holder in {path.parent for path in listing.images} for folder in (holder, *holder.parents)}
    level = 0 if classes & {folder.name for folder in used if len(folder.parts) == 1} else 1
    lost = [
        folder
        for folder in listing.folders
        if 0 < len(folder.parts) <= level + 1
        and folder not in used
        and folder.parent in used
        and folder.name not in classes
    ]
    if not lost:
        return []
    held: dict[Path, list[Path]] = {folder: [] for folder in lost}
    for path in listing.files:
        for folder in held.keys() & set(path.parents):
            held[folder].append(path)
    return [
        f"{len(lost)} folders beside the classes hold no image that is read and give no class: "
        + some(f"{folder} ({suffixes(held[folder]) or 'no file'})" for folder in lost)
    ]


def _refuse_lost_classes(files: Sequence[Path], images: Sequence[Path], level: int) -> None:
    """Refuse a class folder whose pictures are all of formats that are not read, or have no suffix or a longer one."""
    classes = {path.parts[level] for path in images if len(path.parts) > level + 1}
    lost = [
        path
        for path in files
        if len(path.parts) > level + 1
        and path.parts[level] not in classes
        and (path.suffix.lower() in UNREAD_SUFFIXES or not path.suffix or path.suffix.lower().startswith(LONGER))
    ]
    if lost:
        name = lost[0].parts[level]
        paths = [path for path in lost if path.parts[level] == name]
        raise DataError(
            f"folder {name} holds no image that is read, but {len(paths)} files ({suffixes(paths)}), the first is "
            f"{paths[0]}: convert or rename them, or {KEY}"
        )


def _refuse_other_readings(images: list[Path], level: int, repeated_folders: Sequence[Path]) -> None:
    """Refuse folders at `level` that may be something else than classes."""
    classes = Counter(path.parts[level] for path in images)
    if len(classes) == 1:
        (name,) = classes
        below = sorted({path.parts[level + 1] for path in images if len(path.parts) > level + 2})
        hint = (
            f"; below it are {some(below)}: set data.data_root to that folder if these are the classes" if below else ""
        )
        links = [path for path in repeated_folders if len(path.parts) == level + 1]
        linked = f" ({some(links)} only links to what is read under another name)" if links else ""
        raise DataError(
            f"all {len(images)} images lie in one folder, {name}, so there is no second class{linked}{hint}, or {KEY}"
        )
    stores = sorted(name for name in classes if name.lower() in STORES)
    if stores:
        raise DataError(f"{_counted(classes)}: {some(stores)} is hardly the name of a class; move it away, or {KEY}")
    by_depth = {len(path.parts): path for path in reversed(images)}
    if len(by_depth) > 1:
        raise DataError(
            f"images lie at {len(by_depth)} depths, as {by_depth[min(by_depth)]} and {by_depth[max(by_depth)]}: {KEY}"
        )
    parents: defaultdict[str, set[str]] = defaultdict(set)
    for path in images:
        for name in path.parts[level + 1 : -1]:
            parents[name].add(path.parts[level])
    repeated = sorted(name for name, above in parents.items() if len(above) > 1)
    if repeated:
        above = some(sorted(parents[repeated[0]]))
        raise DataError(f"folders {some(repeated)} repeat below {above}, so either may be the classes: {KEY}")
    if all(PART.fullmatch(name) for name in classes):
        raise DataError(f"{_counted(classes)}: all are named as parts of a set and hardly as classes: {KEY}")
    unlabelled = sorted(filter(UNLABELLED.fullmatch, classes))
    if unlabelled:
        raise DataError(
            f"{_counted(classes)}: {some(unlabelled)} names images without a label and hardly a class; move it "
            f"away, or {KEY}, where labels may be empty and data.unlabelled says what becomes of these images"
        )
    _refuse_joined_roles(classes)


def _refuse_joined_roles(classes: Counter[str]) -> None:
    """Refuse folders whose names all join a split role and the rest, where one rest has two roles: train_a, test_a."""
    rests: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in classes:
        cuts = [(name[: joint.start()], name[joint.end() :]) for joint in _JOINT.finditer(name)]
        pairs = [pair for before, after in cuts for pair in ((before, after), (after, before))]
        readings = [(role, rest) for word, rest in pairs if rest and (role := role_of_name(word))]
        if not readings:
            return
        for role, rest in readings:
            rests[rest.casefold()][role] = rest
    shared = [roles for roles in rests.values() if len(roles) > 1]
    if shared:
        splits = sorted({role for roles in shared for role in roles})
        raise DataError(
            f"{_counted(classes)}: these may be {len(classes)} classes, or splits {', '.join(splits)} of "
            f"{some(sorted(min(roles.values()) for roles in shared))}: set data.class_names to all their names to read "
            f"them as classes, or list the images in a manifest.csv with columns label and split"
        )


def _counted(folders: Counter[str]) -> str:
    """Folders and their images."""
    return "folders " + some(f"{name} ({count} images)" for name, count in sorted(folders.items()))
