"""Groups: which images may show one scene and must never be divided between splits.

A group is a connected component over all the ways in which two images can be one scene: the same drive (`group`), the
same original (`source_id`), places within some metres, equal pixels, and perceptual hashes a few bits apart. Taking
any one rule alone was rejected: the drives of one street corner and the crops of one photograph leak as well.

A rule answers with one number for each row: the smallest row that it joins this row to, through any chain, which is
the row itself where it joins nothing. Listing the pairs was rejected: 20,000 frames at one place are 200 million.
"""

import posixpath
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from natix_lib.arrays import Ints


def joined(rows: int, a: Ints, b: Ints) -> Ints:
    """The smallest row of each row's component, (rows,), where row `a[i]` is linked to row `b[i]`."""
    graph = coo_matrix((np.ones(len(a), dtype=np.int8), (a, b)), shape=(rows, rows))
    count, component = connected_components(graph, directed=False)
    smallest = np.empty(count, dtype=np.int64)
    smallest[component[::-1]] = np.arange(rows)[::-1]  # of equal places the last assignment stays
    return np.asarray(smallest[component], dtype=np.int64)


def joined_by_all(rules: Sequence[Ints]) -> Ints:
    """The smallest row of each row's component over several rules, (rows,)."""
    rows = len(rules[0])
    linked = [np.flatnonzero(rule != np.arange(rows)) for rule in rules]
    return joined(
        rows, np.concatenate(linked), np.concatenate([rule[row] for rule, row in zip(rules, linked, strict=True)])
    )


def same_value(values: Sequence[Hashable | None]) -> Ints:
    """Join the rows of each value; None joins nothing."""
    first: dict[Hashable, int] = {}
    return np.array(
        [row if value is None else first.setdefault(value, row) for row, value in enumerate(values)], dtype=np.int64
    )


def same_source(ids: Sequence[str], sources: Sequence[str | None]) -> Ints:
    """Join the rows of one source, and the image whose id the source is; `./x` and `x` are one name."""
    names = [None if source is None else posixpath.normpath(str(source)) for source in sources]
    children = same_value(names)
    named = set(names)
    parents = {name: row for row, name in enumerate(map(posixpath.normpath, ids)) if name in named}
    child = np.array([row for row, name in enumerate(names) if name in parents], dtype=np.int64)
    parent = np.array([parents[name] for name in names if name in parents], dtype=np.int64)
    rows = np.arange(len(ids))
    return joined(len(ids), np.concatenate([rows, child]), np.concatenate([children, parent]))
