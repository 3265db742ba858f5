"""The rules that join images: their names, what switches each off, and what they make of the largest group."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from natix_lib.arrays import Bools, Ints
from natix_lib.data.drives import LOOKS, NAME, TIME
from natix_lib.data.groups import Links

SAME = "same_pixels"
NEAR = "near_duplicate"
SWITCHES = {
    "group": "data.columns.group",
    "source_id": "data.columns.source_id",
    "place": "split.gps_radius_m",
    SAME: "the images themselves",
    NEAR: "split.near_duplicate_bits",
    TIME: "split.drive_gap_s",
    NAME: "split.drive_names",
    LOOKS: "split.drive_looks",
}
GIANT = 0.5  # share of the images in one group, above which no ratio can be met


@dataclass(frozen=True)
class LargestGroup:
    """The group with the most images that have a label; others are not counted.

    Attributes:
        name: Smallest id of the images in it.
        images: How many it has.
        share: Share of all images, in (0, 1].
        rule: The rule that joins most of them, a key of SWITCHES; None where no rule joins any.
        links: Images that each rule joins to another one of the group.
        examples: The ids of the first two that `rule` joins; empty where none does.
    """

    name: str
    images: int
    share: float
    rule: str | None
    links: dict[str, int]
    examples: list[str]

    def __str__(self) -> str:
        """What a person is told when it is too large to divide by."""
        reason = ""
        if self.rule is not None:
            a, b = self.examples
            reason = f", most of them joined by {self.rule} ({SWITCHES[self.rule]}), first {a} and {b}"
        return f"one group holds {self.images} images, {self.share:.0%} of all{reason}"


def largest_group(smallest: Ints, labelled: Bools, rules: Mapping[str, Links], ids: list[str]) -> LargestGroup:
    """The group with the most images that have a label.

    Args:
        smallest: Smallest row of each image's group, (n,).
        labelled: Which images have a label, at least one, (n,).
        rules: What each rule joins.
        ids: Id of each image, (n,).
    """
    first = int(np.bincount(smallest, labelled).argmax())
    members = np.flatnonzero((smallest == first) & labelled)
    links = {name: members[rule.to[members] != members] for name, rule in rules.items()}
    rule = max(links, key=lambda name: len(links[name]))
    examples = (
        [ids[row] for row in sorted((rules[rule].to[links[rule][0]], links[rule][0]))] if len(links[rule]) else []
    )
    return LargestGroup(
        name=ids[first],
        images=len(members),
        share=len(members) / int(labelled.sum()),
        rule=rule if examples else None,
        links={name: len(rows) for name, rows in links.items()},
        examples=examples,
    )
