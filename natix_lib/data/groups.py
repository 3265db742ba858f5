"""Groups: which images may show one scene and must never be divided between splits.

A group is a connected component over all the ways in which two images can be one scene: the same drive (`group`), the
same original (`source_id`), places within some metres, equal pixels, and perceptual hashes a few bits apart. Taking
any one rule alone was rejected: the drives of one street corner and the crops of one photograph leak as well.

A rule answers with `Links`: for each row one other row that it is joined to and why, or itself where it begins a
component. Listing the pairs was rejected: 20,000 frames at one place are 200 million. The smallest row of a component,
through any chain, is its number.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

from natix_lib.arrays import Bools, Ints
from natix_lib.data.originals import normalised, originals
from natix_lib.data.rows import some

MOST_FITS = 8  # images that one source may name and that are joined with each other


@dataclass(frozen=True)
class Links:
    """What one rule joins: the links of a component are a tree.

    Attributes:
        to: The row that each row is joined to, itself where it begins a component or is alone, (n,).
        why: Says what joins a row to `to[row]`, in a few words: "12 m apart", "3 of 64 bits differ".
        warnings: What a reader must know of it, sentences.
    """

    to: Ints
    why: Callable[[int], str]
    warnings: Sequence[str] = ()

    @cached_property
    def smallest(self) -> Ints:
        """The smallest row of each row's component, (n,)."""
        return joined_by_all([self.to])

    @property
    def rows(self) -> Ints:
        """The rows that are joined to another one."""
        return np.flatnonzero(self.to != np.arange(len(self.to)))


def tree(rows: int, a: Ints, b: Ints) -> Ints:
    """A row that each row is linked to, among the links of row `a[i]` to row `b[i]`, so that components stay whole.

    Returns:
        `Links.to`, (rows,).
    """
    begins = np.flatnonzero(joined(rows, a, b) == np.arange(rows))
    source, target = np.concatenate([a, np.full(len(begins), rows)]), np.concatenate([b, begins])
    graph = coo_matrix((np.ones(len(source), dtype=np.int8), (source, target)), shape=(rows + 1, rows + 1))
    before = breadth_first_order(graph.tocsr(), rows, directed=False)[1][:rows]
    return np.where(before == rows, np.arange(rows), before).astype(np.int64)


def joined(rows: int, a: Ints, b: Ints) -> Ints:
    """The smallest row of each row's component, (rows,), where row `a[i]` is linked to row `b[i]`."""
    graph = coo_matrix((np.ones(len(a), dtype=np.int8), (a, b)), shape=(rows, rows))
    count, component = connected_components(graph, directed=False)
    smallest = np.empty(count, dtype=np.int64)
    smallest[component[::-1]] = np.arange(rows)[::-1]  # of equal places the last assignment stays
    return np.asarray(smallest[component], dtype=np.int64)


def joined_to(before: Ints, a: Ints, b: Ints) -> Ints:
    """The smallest row of each row's component, (rows,), with links of `a[i]` to `b[i]` beside those to `before`."""
    rows = len(before)
    return joined(rows, np.append(np.arange(rows), a), np.append(before, b))


def joined_by_all(rules: Sequence[Ints]) -> Ints:
    """The smallest row of each row's component over several rules, (rows,)."""
    rows = len(rules[0])
    linked = [np.flatnonzero(rule != np.arange(rows)) for rule in rules]
    return joined(
        rows, np.concatenate(linked), np.concatenate([rule[row] for rule, row in zip(rules, linked, strict=True)])
    )


def numbers_of(values: Sequence[Hashable | None]) -> Ints:
    """A number for each distinct value, from 0 in the order in which they come up; -1 for None, (n,)."""
    numbers: dict[Hashable, int] = {}
    return np.array(
        [-1 if value is None else numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64
    )


def differ(one: Ints, other: Ints) -> Bools:
    """Where two numbers, of which a negative one is none, are both given and differ, (k,)."""
    differs: Bools = (one != other) & (one >= 0) & (other >= 0)
    return differs


def same_value(values: Sequence[Hashable | None]) -> Ints:
    """Join the rows of each value; None joins nothing."""
    first: dict[Hashable, int] = {}
    return np.array(
        [row if value is None else first.setdefault(value, row) for row, value in enumerate(values)], dtype=np.int64
    )


def same_source(ids: Sequence[str], sources: Sequence[str | None]) -> Links:
    """Join each image with the one that its source names, as `originals` finds it, and those whose source is none.

    Where several images fit, it is joined with all of them, up to MOST_FITS. Of more, which would join half of a set
    where every drive begins with `0001.jpg`, it is joined with none, but with the others of that source.

    Args:
        ids: Name of each image, (n,).
        sources: Name of the original of each image, None for none, (n,).
    """
    names = [None if source is None else normalised(str(source)) for source in sources]
    fits = originals(ids, names)
    links: list[tuple[int, int]] = []
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if name is not None:
            fit = fits.get(row, ())
            ends = fit if 0 < len(fit) <= MOST_FITS else [first.setdefault(name, row)]
            links += [(row, end) for end in ends]
    pairs = np.array(links, dtype=np.int64).reshape(-1, 2)
    to = tree(len(ids), *pairs.T)

    def why(row: int) -> str:
        source = sources[row] if sources[row] is not None else sources[to[row]]
        return f"source {source}"

    return Links(to, why, _unclear(ids, sources, fits))


def _unclear(ids: Sequence[str], sources: Sequence[str | None], fits: Mapping[int, Sequence[int]]) -> list[str]:
    """Sentences on sources that fit several images."""
    several = sorted(row for row, fit in fits.items() if len(fit) > 1)
    by_what = {
        "several images each, and they are joined with all of these": [
            row for row in several if len(fits[row]) <= MOST_FITS
        ],
        f"more than {MOST_FITS} images each, and they are joined with none of these, so copies of one original can lie "
        "in two splits": [row for row in several if len(fits[row]) > MOST_FITS],
    }
    return [
        f"source_id of {len(rows)} images fits {what}: {some([f'{sources[rows[0]]} of {ids[rows[0]]}'])} "
        f"fits {some(ids[row] for row in fits[rows[0]])}; a source_id with the folders of its image fits one."
        for what, rows in by_what.items()
        if rows
    ]
