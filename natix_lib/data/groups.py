"""Groups: which images may show one scene and must never be divided between splits.

A group is a connected component over all the ways in which two images can be one scene: the same drive (`group`), the
same original (`source_id`), places within some metres, equal pixels, and perceptual hashes a few bits apart. Taking
any one rule alone was rejected: the drives of one street corner and the crops of one photograph leak as well.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Ints = NDArray[np.int64]
Pairs = NDArray[np.int64]  # (k, 2), row numbers
EARTH_RADIUS_M = 6_371_008.8


@dataclass(frozen=True)
class Linked:
    """Pairs of rows that each rule joins."""

    pairs: dict[str, Pairs]

    def components(self, rows: int) -> Ints:
        """The component number of each row, (rows,)."""
        both = np.concatenate([np.empty((0, 2), dtype=np.int64), *self.pairs.values()])
        graph = coo_matrix((np.ones(len(both), dtype=np.int8), (both[:, 0], both[:, 1])), shape=(rows, rows))
        return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def same_value(values: Sequence[str | None]) -> Pairs:
    """Chains of pairs that join the rows of each value; None joins nothing."""
    seen: dict[str, int] = {}
    pairs = []
    for row, value in enumerate(values):
        if value is not None:
            if value in seen:
                pairs.append((seen[value], row))
            seen[value] = row
    return _pairs(pairs)


def within_metres(lat: NDArray[np.float64], lon: NDArray[np.float64], metres: float) -> Pairs:
    """Pairs of places at most `metres` apart; degrees (n,), NaN where unknown."""
    known = np.flatnonzero(np.isfinite(lat) & np.isfinite(lon))
    if not len(known) or metres <= 0:
        return _pairs([])
    phi, theta = np.radians(lat[known]), np.radians(lon[known])
    points = np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], axis=1)
    chord = 2 * np.sin(min(metres / EARTH_RADIUS_M, np.pi) / 2)
    found = cKDTree(points).query_pairs(chord, output_type="ndarray")
    return _pairs(known[found])


def near_duplicates(hashes: Sequence[int | None], bits: int) -> Pairs:
    """Pairs of 64-bit hashes that differ in at most `bits` bits; exact.

    Two such hashes agree in at least one of `bits + 1` bands, so only rows that share a band are compared. Rows of one
    hash are joined as a chain.
    """
    known = [row for row, value in enumerate(hashes) if value is not None]
    if not known or bits < 0:
        return _pairs([])
    values = np.array([hashes[row] for row in known], dtype=np.uint64)
    distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rows = np.array(known, dtype=np.int64)
    found = [same_value([str(number) for number in inverse])] if len(distinct) < len(values) else []
    pairs = [rows[chain] for chain in found]
    edges = np.linspace(0, 64, bits + 2).astype(int)
    for low, high in itertools.pairwise(edges):
        keys = (distinct >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(keys, kind="stable")
        for shift in range(1, len(order)):
            near = np.flatnonzero(keys[order[shift:]] == keys[order[:-shift]])
            if not len(near):
                break
            a, b = order[near], order[near + shift]
            close = np.bitwise_count(distinct[a] ^ distinct[b]) <= bits
            if close.any():
                pairs.append(rows[first[np.stack([a[close], b[close]], axis=1)]])
    if not pairs:
        return _pairs([])
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)


def _pairs(pairs: object) -> Pairs:
    return np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
