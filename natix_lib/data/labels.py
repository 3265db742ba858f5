"""Labels that may be wrong: one picture under two classes, and texts of a row that contradict its class.

Doubts are shown and nothing is changed, because either label of a pair may be the right one; what is dropped is dropped
by the config. Plain words are looked for, in any case and as they stand: a regular expression of a person can take
minutes on one long text, and a list of words says the same.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from natix_lib.data.division import NEAR, Division
from natix_lib.data.rows import Row

LOOKS = ("same_pixels", NEAR)  # the rules that say that two images are one picture
EXCERPT = 160  # characters of a text that is shown
EXAMPLES = 12

Rules = Mapping[str, Mapping[str, Sequence[str]]]  # class -> column -> words that contradict it


def conflicts(division: Division) -> list[tuple[str, int, int, str]]:
    """Pairs that look the same and have different labels: the rule, both rows of the division, and the evidence.

    They are links of a tree: every group of pictures that look the same and have two labels gives at least one.
    """
    found = []
    for rule in LOOKS:
        links = division.rules.get(rule)
        if links is not None:
            rows = links.rows[division.labels[links.rows] != division.labels[links.to[links.rows]]]
            found += [(rule, int(links.to[row]), int(row), links.why(int(row))) for row in rows.tolist()]
    return found


def in_conflict(division: Division) -> set[str]:
    """The ids of all images that look the same as one with another label, also by a chain of such."""
    names: set[str] = set()
    for rule in LOOKS:
        links = division.rules.get(rule)
        if links is not None:
            low, high = division.labels.copy(), division.labels.copy()
            np.minimum.at(low, links.smallest, division.labels)
            np.maximum.at(high, links.smallest, division.labels)
            mixed = (low < high)[links.smallest]
            names |= {division.ids[row] for row in np.flatnonzero(mixed)}
    return names


def contradicted(row: Row, rules: Rules) -> tuple[str, str] | None:
    """The column and the word of a row that contradict its label; None where none does."""
    for column, words in rules.get(str(row.label), {}).items():
        text = (row.tags.get(column) or "").casefold()
        for word in words:
            if word.casefold() in text:
                return column, word
    return None
