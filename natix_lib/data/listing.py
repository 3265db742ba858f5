"""What lies below data.data_root: the files that a person put there, and what is left out and said.

Linked folders are followed, also out of data_root, because class folders are linked from larger disks. Each folder is
read once: under its own name where it lies in data_root, else by the link nearest to the top, the first by name of
several. So a link to a parent ends nothing, no picture stands in two classes by a linked folder, and no link takes the
images of a class. Hidden names and those that systems leave behind are no data. The suffix decides what is an image
here: looking into every other file was rejected, a manifest can name files of any suffix.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from heapq import heappop, heappush
from pathlib import Path

from natix_lib.contracts import ROLE_ALIASES, ROLES, parse_role
from natix_lib.data.rows import readable, some
from natix_lib.errors import DataError

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif"),
    *(".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"),
}
UNREAD_SUFFIXES = {  # pictures all the same
    *(".heic", ".heif", ".jp2", ".j2k", ".jxl", ".jxr", ".ico", ".svg", ".psd", ".eps", ".pdf", ".tga", ".pbm", ".pgm"),
    *(".ppm", ".raw", ".cr2", ".cr3", ".dng", ".nef", ".arw", ".orf", ".rw2", ".raf", ".exr", ".hdr", ".mp4", ".avi"),
    *(".mov", ".mkv"),
}
SYSTEM_NAMES = {"__macosx", "@eadir", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"}
SYSTEM_NAMES |= {"lost+found", "#recycle", "@recycle", "__pycache__"}
ROLE_WORDS = {word.lower(): parse_role(word) for word in (*ROLES, *ROLE_ALIASES)}
_WORDS = "|".join(sorted(map(re.escape, ROLE_WORDS), key=len, reverse=True))
# test, test_set, train2017, val-images, and of part files test-00000-of-00004 with or without a hash, as Hugging Face
# names them; not test_track, which may be a class, nor test-drive-munich
_PART = r"-\d+-of-\d+(?:-[0-9a-f]+)?"
ROLE_NAME = re.compile(rf"({_WORDS})(?:[-_. ]?(?:set|data|dataset|split|images|imgs|\d+))?(?:{_PART})?", re.IGNORECASE)
STATE, SPLITS = "state.json", "dataset_dict.json"  # what datasets.save_to_disk writes beside its Arrow files
NEAR_ROLE = re.compile(rf"(?:{_WORDS})[-_. ].*", re.IGNORECASE)  # begins with a role's word and gives none


@dataclass
class Listing:
    """The files below a folder, relative to it and sorted.

    Attributes:
        root: The folder that is listed.
        place: What its owner calls it: an archive or a bucket's prefix has its files in a folder that nobody knows.
        files: Files and links to files.
        folders: Folders and links to folders, each read once.
        hidden: Hidden and system files and folders, not looked into.
        broken: Links to nothing, pipes and devices.
        repeated: Folders that are a folder which was read already.
    """

    root: Path
    place: str
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)

    @cached_property
    def images(self) -> list[Path]:
        """Files with the suffix of an image; a broken link with one is an image that cannot be read."""
        return sorted(path for path in [*self.files, *self.broken] if path.suffix.lower() in IMAGE_SUFFIXES)

    @cached_property
    def image_names(self) -> set[bytes]:
        """Names of the images without their folders, as a file system holds them."""
        return {path.name.encode("utf-8", "surrogateescape") for path in self.images}

    @property
    def parquet(self) -> list[Path]:
        """Parquet files, without those that Spark writes about others, as _metadata."""
        return [path for path in self.with_suffix(".parquet") if not path.name.startswith("_")]

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """Files whose name ends in one of `suffixes`, in any case."""
        return [path for path in self.files if path.name.lower().endswith(suffixes)]

    def left_out(self, used: Iterable[Path]) -> list[str]:
        """What is not read, a line for each reason, when `used` and no other files are."""
        lines = []
        used = set(used)
        rest = [path for path in self.files if path not in used]
        pictures = [path for path in rest if path.suffix.lower() in IMAGE_SUFFIXES]
        unread = [path for path in rest if path.suffix.lower() in UNREAD_SUFFIXES]
        other = [path for path in rest if path.suffix.lower() not in IMAGE_SUFFIXES | UNREAD_SUFFIXES]
        if pictures:
            lines.append(f"left out {len(pictures)} images that no row names: {some(pictures)}")
        if unread:
            lines.append(
                f"left out {len(unread)} files of formats that are not read ({suffixes(unread)}): {some(unread)}"
            )
        if other:
            lines.append(f"left out {len(other)} files without an image's suffix ({suffixes(other)}): {some(other)}")
        if self.hidden:
            lines.append(f"left out {len(self.hidden)} hidden or system files and folders: {some(self.hidden)}")
        if self.repeated:
            lines.append(
                f"left out {len(self.repeated)} linked folders that were read under another name: {some(self.repeated)}"
            )
        return lines


def list_folder(root: Path, place: str = "") -> Listing:
    """List a folder and all below it, links followed after all else, each folder once.

    Args:
        root: The folder.
        place: What its owner calls it; "" is its path.

    Raises:
        DataError: If a folder cannot be read.
    """
    listing = Listing(root, place or str(root))
    seen: set[tuple[int, int]] = set()
    pending = [Path()]
    links: list[tuple[int, Path]] = []  # a heap, by depth
    while pending or links:
        folder = pending.pop() if pending else heappop(links)[1]
        try:
            status = (root / folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                listing.repeated.append(folder)
                continue
            seen.add((status.st_dev, status.st_ino))
            listing.folders.append(folder)
            for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name, reverse=True):
                path = folder / entry.name
                if is_hidden(entry.name):
                    listing.hidden.append(path)
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif entry.is_symlink() and (root / path).is_dir():
                    heappush(links, (len(path.parts), path))
                elif (root / path).is_file() if entry.is_symlink() else entry.is_file():
                    listing.files.append(path)
                else:
                    listing.broken.append(path)
        except OSError as error:
            raise DataError(f"folder {listing.place}/{folder} cannot be read: {error.strerror or error}") from error
    for paths in (listing.files, listing.folders, listing.hidden, listing.broken, listing.repeated):
        paths.sort()
    return listing


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by a system."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def suffixes(paths: Sequence[Path]) -> str:
    """The suffixes of some files and how often each occurs, the most frequent first."""
    counts = Counter(readable(path.suffix.lower()) or "none" for path in paths)
    return some(f"{suffix} {count}" for suffix, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


@lru_cache(maxsize=4096)
def role_of_name(name: str) -> str | None:
    """The role that the name of a folder or a file gives: train, test_set, val2017, split=test; None for any other."""
    match = ROLE_NAME.fullmatch(name.rpartition("=")[2].removesuffix(".parquet").strip())
    return ROLE_WORDS[match[1].lower()] if match else None


def role_of_folders(names: Iterable[str]) -> str | None:
    """The role that folders give, from the outermost: the first that gives one."""
    return next((role for name in names if (role := role_of_name(name))), None)


def role_of_file(path: Path) -> str | None:
    """The role of a file by its name, else by its folders: train-00000-of-00004.parquet, val/x.parquet.

    Raises:
        DataError: If the two give different roles.
    """
    by_name, by_folder = role_of_name(path.stem), role_of_folders(path.parts[:-1])
    if by_name and by_folder and by_name != by_folder:
        raise DataError(f"{readable(str(path))} is {by_name} by its name and {by_folder} by its folder: rename one")
    return by_name or by_folder


def refuse_copies(paths: Iterable[Path]) -> None:
    """Refuse files that stand for the same part of the same role below two folders: two configs of a set, or a backup.

    Folders such as city=arden divide a set and are no copies of it.

    Raises:
        DataError: With both files.
    """
    first: dict[tuple[str, ...], Path] = {}
    for path in paths:
        level = next((level for level, name in enumerate((*path.parts[:-1], path.stem)) if role_of_name(name)), None)
        if level is None:
            continue
        below = (*path.parts[level:-1], re.sub(rf"{_PART}$", "", path.stem))
        other = first.setdefault((*(part for part in path.parts[:level] if "=" in part), *below), path)
        if other.parts[: len(other.parts) - len(below)] != path.parts[:level]:
            raise DataError(
                f"{readable(str(other))} and {readable(str(path))} are the same part of the set by their names, as of "
                "two versions or a copy: set data.data_root to the folder of one, or rename them"
            )
