"""Named slices: the images whose tag has a value, such as weather=rain, for which errors may be bounded too.

The tags of all images are kept beside their labels, as codes, whichever slices a policy speaks of: so another slice
asks for no other training. Values are those that the data has in any role, and a tag that is asked for alone stands for
each of them, also for one that none of the images to be certified has. So the number of promises, and with it the share
of delta that each gets, does not hang on which rows certify them. Whoever wants none for a rare value names the others.

An image without a value is in no slice of that tag: "not told" is no kind of street. Which slice an image is in need
not be known when it is decided on, since the accept rule does not look at tags.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from natix_lib.arrays import Bools
from natix_lib.errors import CalibrationError

MOST_VALUES = 200  # distinct values; a tag with more is a name or a text, and no slice has rows enough for a promise
NONE = -1  # code of an image without a value
SHOWN = 12  # names in a message


class Slice(NamedTuple):
    """The images whose tag has a value; written `tag=value`."""

    tag: str
    value: str

    def __str__(self) -> str:
        """As it is asked for."""
        return f"{self.tag}={self.value}"


@dataclass(frozen=True)
class Tags:
    """The tags of n images.

    Attributes:
        values: The values of each of K tags, sorted; not each need be there.
        codes: Number of each image's value in them, `NONE` for none, int16 (n, K).
        left_out: Tags with more than `MOST_VALUES` values.
    """

    values: Mapping[str, Sequence[str]]
    codes: NDArray[np.int16]
    left_out: Sequence[str] = ()

    @classmethod
    def of(
        cls, columns: Mapping[str, Sequence[str | None]], n: int, *others: Mapping[str, Sequence[str | None]]
    ) -> "Tags":
        """The tags of n images.

        Args:
            columns: Tag to the value of each image, n of them.
            n: The images.
            others: Such columns of other images, whose values are known as well.
        """
        known = {
            tag: sorted({value for each in (columns, *others) for value in each.get(tag, ()) if value is not None})
            for tag in sorted(columns)
        }
        values = {tag: each for tag, each in known.items() if len(each) <= MOST_VALUES}
        codes = np.full((n, len(values)), NONE, dtype=np.int16)
        for column, (tag, names) in enumerate(values.items()):
            number = {name: code for code, name in enumerate(names)} | {None: NONE}
            codes[:, column] = [number[value] for value in columns[tag]]
        return cls(values, codes, sorted(set(known) - set(values)))

    def slices(self, asked: Sequence[str]) -> list[Slice]:
        """The slices that are asked for, each once.

        Args:
            asked: `tag=value`, or `tag` for each value of the tag. Where the name of a tag itself holds `=`, the
                longest that fits is meant.

        Raises:
            CalibrationError: If a tag or a value is unknown, naming the known ones.
        """
        found: dict[Slice, None] = {}
        for name in asked:
            found |= dict.fromkeys(self._slices(name))
        return list(found)

    def mask(self, of: Slice) -> Bools:
        """Which images are in a slice, (n,); none where its tag or value is not known here."""
        if of.value not in self.values.get(of.tag, ()):
            return np.zeros(len(self.codes), dtype=np.bool_)
        result: Bools = self.codes[:, list(self.values).index(of.tag)] == self.values[of.tag].index(of.value)
        return result

    def _slices(self, name: str) -> list[Slice]:
        if name in self.values:
            return [Slice(name, value) for value in self.values[name]]
        tags = [tag for tag in (*self.values, *self.left_out) if name == tag or name.startswith(f"{tag}=")]
        if not tags:
            known = _listed(self.values) or "none"
            raise CalibrationError(f"slices must name tags of the data, or tag=value, known are {known}; got {name!r}")
        tag = max(tags, key=len)
        if tag in self.left_out:
            raise CalibrationError(f"slices must name tags of at most {MOST_VALUES} values, {tag!r} has more")
        value = name[len(tag) + 1 :]
        if value not in self.values[tag]:
            known = _listed(self.values[tag]) or "none"
            raise CalibrationError(f"slices must name values that {tag} has, known are {known}; got {name!r}")
        return [Slice(tag, value)]


def _listed(names: Mapping[str, Sequence[str]] | Sequence[str]) -> str:
    shown = list(names)[:SHOWN]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
