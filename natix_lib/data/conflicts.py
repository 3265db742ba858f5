"""Images that look the same and have different labels: of one picture in two classes, one label is wrong.

Which of the two is wrong cannot be told from here, so both are shown and kept, and where the config says so both are
left out, with every image that looks the same: to keep the more frequent label was rejected, two copies of a mistake
would outvote the truth.
"""

from collections.abc import Mapping

import numpy as np

from natix_lib.arrays import Bools, Ints
from natix_lib.data.groups import Links
from natix_lib.data.rules import NEAR, SAME

SAME_PICTURE = (SAME, NEAR)  # the rules that say that two images are one picture


def conflicts(rules: Mapping[str, Links], labels: Ints) -> list[tuple[str, int, int]]:
    """Links of images that look the same and have different labels: the rule, and both rows.

    They are links of a tree, so every set of images that look the same and have two labels gives at least one. Where a
    link leads to an image without a label, the first one with a label that looks the same stands for it.

    Args:
        rules: What each rule joins.
        labels: Class number of each image, -1 for none, (n,).
    """
    found: dict[tuple[int, int], str] = {}
    labelled = np.flatnonzero(labels >= 0)
    for rule in SAME_PICTURE:
        links = rules[rule]
        first = np.full(len(labels), len(labels))
        np.minimum.at(first, links.smallest[labelled], labelled)
        to = np.where(labels[links.to] >= 0, links.to, first[links.smallest])
        rows = labelled[labels[labelled] != labels[to[labelled]]]
        for low, high in np.sort([to[rows], rows], axis=0).T.tolist():
            found.setdefault((low, high), rule)
    return [(rule, a, b) for (a, b), rule in found.items()]


def in_conflict(rules: Mapping[str, Links], labels: Ints) -> Bools:
    """Which images look the same as one with another label, also by a chain of such, (n,); arguments as `conflicts`."""
    result = np.zeros(len(labels), dtype=bool)
    for rule in SAME_PICTURE:
        first = rules[rule].smallest
        low = np.where(labels >= 0, labels, labels.max(initial=0) + 1)
        high = labels.copy()
        np.minimum.at(low, first, low.copy())
        np.maximum.at(high, first, labels)
        result |= low[first] < high[first]
    return result
