"""Image names -> runs of frame numbers: `pgh0123_00045.jpg` is frame 45 of `pgh0123_`.

The frame number is the last number of the name that is not the same in all names of its form (`_leftImg8bit` is no
frame 8). What stands around it names the run; names that differ in digits only are of one form, in which frames are
numbered in one way. A day and a clock at the end (`2024-05-01_12-00-00`) are one number, and so are seconds since 1970
with a fraction: else each minute would be a drive. A run whose name holds digits may be a drive; one without
(`IMG_1234`, `train_0007`) is a camera's or a collector's count, and so are the folders of cameras (`100CANON`) and the
rows of a Parquet file. Numbers alone never say that neighbours were taken together: collections from the web are
numbered too. `drives.py` looks. Without Arrow, see `times.py`, no name holds a number.

A drive whose frames lie in the folders of several classes or splits is one run: those folders are left out of names,
except where the same number then comes back, as in collections that are numbered one by one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from natix_lib.arrays import Bools, Floats, Ints
from natix_lib.data.arrow_texts import HAS_ARROW, pa, pc
from natix_lib.data.listing import ROLE_NAME
from natix_lib.data.times import of_names

ENDING = r"(?i)([_.](jpe?g|png|bmp|webp|tiff?)\.rf\.[0-9a-f]+)?\.[a-z0-9]{1,5}$"  # also what Roboflow adds to a name
LAST_NUMBER = r"^(?P<before>.*?)(?P<number>[0-9]+)(?P<after>[^0-9]*)$"
DIGITS = 18  # of a number's end, that tell frames apart: a machine word holds them
SINCE_1970 = r"^(?P<before>(?:.*[^0-9])?)(?P<seconds>1[0-9]{9})\.(?P<fraction>[0-9]{1,9})$"
COUNTED = r"(?i)^(.*/)?[0-9]{3}[a-z0-9_]{5}/[^0-9]*$|\.parquet#$"  # a camera's folder, rows of a table
ROLES = rf"(?i)(^|/)(?:{ROLE_NAME.pattern})/"
LONGEST_FOLDER = 255  # characters that a file system lets a name have
COLLISIONS = 0.1  # of the images that another folder adds to a run, up to which it is one run
FIXED = 3  # numbers at the end of all names of a form that are no frame's


@dataclass(frozen=True)
class Frames:
    """Runs of numbered names.

    Attributes:
        run: Number of each row's run; -1 for a name without a number, (n,).
        form: Number of the form of each row's name; -1 for a name without a number, (n,).
        number: Frame number of each row, milliseconds since 1970 where it is a clock, (n,).
        named: Whether a row's run has a name with digits, which may be a drive's, (n,).
        names: Name of each run, `*` for the frame number.
        time: Seconds since 1970 that a name ends with, NaN for none, (n,).
    """

    run: Ints
    form: Ints
    number: Ints
    named: Bools
    names: Any
    time: Floats

    def apart(self, a: int, b: int) -> str:
        """What is between two rows of one run, in words."""
        seconds = abs(self.time[a] - self.time[b])
        gap = f"{abs(int(self.number[a] - self.number[b]))} frames" if np.isnan(seconds) else f"{seconds:.3g} s"
        return f"{gap} apart of {self.names[int(self.run[a])]}"


def numbered(ids: Sequence[str]) -> Frames:
    """Find the frame numbers of names.

    Args:
        ids: Names of images, paths with `/` as they stand in the source, (n,).
    """
    if not HAS_ARROW:
        none = np.full(len(ids), -1)
        zeros = np.zeros(len(ids), dtype=np.int64)
        return Frames(none, none, zeros, zeros > 0, [], np.full(len(ids), np.nan))
    before, time = _stems(pa.array(ids, type=pa.string()))
    after = pa.array([""] * len(ids), type=pa.string())
    number = np.zeros(len(ids), dtype=np.int64)
    for turn in range(FIXED + 1):
        parts = pc.extract_regex(before, LAST_NUMBER)
        has_number = parts.is_valid().to_numpy(zero_copy_only=False)
        digits = pc.fill_null(pc.struct_field(parts, "number"), "0")
        last = pc.cast(pc.utf8_slice_codeunits(digits, -DIGITS), pa.int64()).to_numpy(zero_copy_only=False)
        number = np.where(has_number, last, number)
        form = _codes(pc.replace_substring_regex(pc.binary_join_element_wise(before, after, ""), "[0-9]+", "#"))
        forms = int(form.max(initial=0)) + 1
        low, high = np.full(forms, np.iinfo(np.int64).max), np.full(forms, -1)
        np.minimum.at(low, form, number)
        np.maximum.at(high, form, number)
        fixed = pa.array((low == high)[form] & has_number & (np.bincount(form)[form] > 1) & (turn < FIXED))
        tail = pc.binary_join_element_wise(pc.fill_null(pc.struct_field(parts, "after"), ""), after, "")
        if not pc.any(fixed).as_py():
            break
        tail = pc.binary_join_element_wise(pc.if_else(fixed, digits, ""), tail, "")
        after = pc.if_else(fixed, tail, after)
        before = pc.if_else(fixed, pc.fill_null(pc.struct_field(parts, "before"), ""), before)
    before = pc.fill_null(pc.struct_field(parts, "before"), before)
    names = pc.binary_join_element_wise(before, "*", tail, "").dictionary_encode()
    form = _codes(pc.replace_substring_regex(pc.binary_join_element_wise(before, tail, "*"), "[0-9]+", "#"))
    named = pc.match_substring_regex(before, "[0-9]").to_numpy(zero_copy_only=False)
    named &= ~pc.match_substring_regex(before, COUNTED).to_numpy(zero_copy_only=False)
    return Frames(
        np.where(has_number, names.indices.to_numpy(zero_copy_only=False), -1).astype(np.int64),
        np.where(has_number, form, -1),
        number,
        named & has_number,
        names.dictionary,
        time,
    )


def of_drives(ids: Sequence[str], labels: Ints, class_names: Sequence[str]) -> Frames:
    """`numbered`, with a drive that lies in the folders of several classes or splits as one run.

    Args:
        ids: As `numbered` takes them, (n,).
        labels: Class numbers, others than those of `class_names` for images without a label, (n,).
        class_names: Name of each class number.
    """
    if not HAS_ARROW:
        return numbered(ids)
    given = pa.array(ids, type=pa.string())
    short = _without_folders(given, labels, class_names)
    frames = numbered(short)
    if not short.equals(given):
        apart = _collide(frames, _codes(pc.replace_substring_regex(given, "[^/]*$", "")))
        if apart.any():
            frames = numbered(pc.if_else(pa.array(apart), given, short))
    pa.default_memory_pool().release_unused()  # the rules that follow need it: a million names are a tenth of all
    return frames


def _without_folders(ids: Any, labels: Ints, class_names: Sequence[str]) -> Any:
    """Names without the folder of each image's own class, however it is spelled, and without folders of splits."""
    parts, places = [], []
    for label, name in enumerate([*class_names, ""]):
        rows = np.flatnonzero(labels == label if name else (labels < 0) | (labels >= len(class_names)))
        letters = "[ _.-]*".join(re.escape(letter) for letter in name if letter not in " _.-")
        of_class = ids.take(pa.array(rows))
        if 0 < len(name) <= LONGEST_FOLDER and letters:
            of_class = pc.replace_substring_regex(of_class, rf"(?i)(^|/){letters}/", r"\1")
        parts.append(of_class)
        places.append(rows)
    back = np.argsort(np.concatenate(places), kind="stable")
    return pc.replace_substring_regex(pa.concat_arrays(parts).take(pa.array(back)), ROLES, r"\1")


def _collide(frames: Frames, folder: Ints) -> Bools:
    """Images of runs in which folders number their images one by one, (n,); `folder` is the number of each's, (n,)."""
    runs = frames.run + 1  # 0 is none
    count = int(runs.max(initial=0)) + 1
    images = np.bincount(runs, minlength=count)
    numbers = np.bincount(np.unique(np.stack([runs, frames.number]), axis=1)[0], minlength=count)
    of_folder, size = np.unique(np.stack([runs, folder]), axis=1, return_counts=True)
    largest = np.zeros(count, dtype=np.int64)
    np.maximum.at(largest, of_folder[0], size)
    collide: Bools = (images - numbers > COLLISIONS * (images - largest))[runs]
    return collide & (frames.run >= 0)


def _stems(ids: Any) -> tuple[Any, Floats]:
    """Names without their endings, a day and a clock at the end as one number, and the seconds since 1970, (n,)."""
    stems = pc.replace_substring_regex(ids, ENDING, "")
    time, clock, before = of_names(stems)
    clocked = np.isfinite(clock)
    if clocked.any():
        milliseconds = pc.cast(pa.array(np.rint(1000 * np.where(clocked, clock, 0)).astype(np.int64)), pa.string())
        stems = pc.if_else(pa.array(clocked), pc.binary_join_element_wise(before, milliseconds, ""), stems)
    since = pc.extract_regex(stems, SINCE_1970)
    if since.null_count < len(since):
        whole, fraction = pc.struct_field(since, "seconds"), pc.utf8_rpad(pc.struct_field(since, "fraction"), 9, "0")
        joined = pc.binary_join_element_wise(pc.struct_field(since, "before"), whole, fraction, "")
        stems = pc.if_else(since.is_valid(), joined, stems)
    return stems, time


def in_drives(frames: Frames) -> Bools:
    """Which names look like those of a drive's frames: their run may be a drive, and has another frame, (n,)."""
    several = np.bincount(frames.run[frames.run >= 0], minlength=1) > 1
    return frames.named & several[frames.run]


def _codes(texts: Any) -> Ints:
    return np.asarray(texts.dictionary_encode().indices.to_numpy(zero_copy_only=False), dtype=np.int64)
