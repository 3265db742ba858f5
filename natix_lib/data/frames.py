"""Image names -> runs of frame numbers: `pgh0123_00045.jpg` is frame 45 of `pgh0123_`.

The frame number is the last number of the name that is not the same in all names of its form (`_leftImg8bit` is no
frame 8). What stands around it names the run; names that differ in digits only are of one form, in which frames are
numbered in one way. A run whose name holds digits may be a drive; one without (`IMG_1234`, `train_0007`) is a camera's
or a collector's count, and so are the folders of cameras (`100CANON`) and the rows of a Parquet file. Numbers alone
never say that neighbours were taken together: collections from the web are numbered too. `drives.py` looks. Without
Arrow, see `times.py`, no name holds a number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from natix_lib.arrays import Bools, Ints
from natix_lib.data.arrow_texts import HAS_ARROW, pa, pc

ENDING = r"(?i)([_.](jpe?g|png|bmp|webp|tiff?)\.rf\.[0-9a-f]+)?\.[a-z0-9]{1,5}$"  # also what Roboflow adds to a name
LAST_NUMBER = r"^(?P<before>.*?)(?P<number>[0-9]{1,18})(?P<after>[^0-9]*)$"
COUNTED = r"(?i)^(.*/)?[0-9]{3}[a-z0-9_]{5}/[^0-9]*$|\.parquet#$"  # a camera's folder, rows of a table
FIXED = 3  # numbers at the end of all names of a form that are no frame's


@dataclass(frozen=True)
class Frames:
    """Runs of numbered names.

    Attributes:
        run: Number of each row's run; -1 for a name without a number, (n,).
        form: Number of the form of each row's name; -1 for a name without a number, (n,).
        number: Frame number of each row, (n,).
        named: Whether a row's run has a name with digits, which may be a drive's, (n,).
        names: Name of each run, `*` for the frame number.
    """

    run: Ints
    form: Ints
    number: Ints
    named: Bools
    names: Any

    def apart(self, a: int, b: int) -> str:
        """What is between two rows of one run, in words."""
        return f"{abs(int(self.number[a] - self.number[b]))} frames apart of {self.names[int(self.run[a])]}"


def numbered(ids: Sequence[str]) -> Frames:
    """Find the frame numbers of names.

    Args:
        ids: Names of images, paths with `/` as they stand in the source, (n,).
    """
    if not HAS_ARROW:
        none = np.full(len(ids), -1)
        return Frames(none, none, np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=bool), [])
    before = pc.replace_substring_regex(pa.array(ids, type=pa.string()), ENDING, "")
    after = pa.array([""] * len(ids), type=pa.string())
    number = np.zeros(len(ids), dtype=np.int64)
    for turn in range(FIXED + 1):
        parts = pc.extract_regex(before, LAST_NUMBER)
        has_number = parts.is_valid().to_numpy(zero_copy_only=False)
        digits = pc.fill_null(pc.struct_field(parts, "number"), "0")
        number = np.where(has_number, pc.cast(digits, pa.int64()).to_numpy(zero_copy_only=False), number)
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
    )


def in_drives(ids: Sequence[str]) -> Bools:
    """Which names look like those of a drive's frames: their run may be a drive, and has another frame, (n,)."""
    frames = numbered(ids)
    several = np.bincount(frames.run[frames.run >= 0], minlength=1) > 1
    return frames.named & several[frames.run]


def _codes(texts: Any) -> Ints:
    return np.asarray(texts.dictionary_encode().indices.to_numpy(zero_copy_only=False), dtype=np.int64)
