"""Images that look the same and have different labels: of one picture in two classes, one label is wrong.

Which of the two is wrong cannot be told from here, so both are shown and kept, and where the config says so both are
left out, with every image that looks the same: to keep the more frequent label was rejected, two copies of a mistake
would outvote the truth.
"""

import numpy as np

from natix_lib.data.division import NEAR, Division

LOOKS = ("same_pixels", NEAR)  # the rules that say that two images are one picture


def conflicts(division: Division) -> list[tuple[str, int, int]]:
    """Links of images that look the same and have different labels: the rule, and both rows of the division.

    They are links of a tree, so every set of images that look the same and have two labels gives at least one. Where a
    link leads to an image without a label, the first one with a label that looks the same stands for it.
    """
    found: dict[tuple[int, int], str] = {}
    labels, labelled = division.labels, np.flatnonzero(division.labels >= 0)
    for rule in LOOKS:
        links = division.rules[rule]
        first = np.full(len(labels), len(labels))
        np.minimum.at(first, links.smallest[labelled], labelled)
        to = np.where(labels[links.to] >= 0, links.to, first[links.smallest])
        rows = labelled[labels[labelled] != labels[to[labelled]]]
        for low, high in np.sort([to[rows], rows], axis=0).T.tolist():
            found.setdefault((low, high), rule)
    return [(rule, a, b) for (a, b), rule in found.items()]


def in_conflict(division: Division) -> set[str]:
    """The ids of all images that look the same as one with another label, also by a chain of such."""
    names: set[str] = set()
    for rule in LOOKS:
        first = division.rules[rule].smallest
        low = np.where(division.labels >= 0, division.labels, len(division.class_names))
        high = division.labels.copy()
        np.minimum.at(low, first, low.copy())
        np.maximum.at(high, first, division.labels)
        names |= {division.ids[row] for row in np.flatnonzero(low[first] < high[first])}
    return names
