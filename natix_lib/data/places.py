"""Which images were taken near one another, in memory and time that grow with the images, not with their pairs.

Places fall into cubes so small that all places of one are near each other. Two cubes are joined when any place of one
is near any place of the other: boxes that are too far apart and first places that are near settle almost all of them,
cubes that are already joined by others need no look, and the rest is searched by a k-d tree. All pairs by a k-d tree,
as before, took 10 GB for 20,000 frames of one crossing. Unit vectors, not degrees, so that poles and the date line are
places like others.
"""

import numpy as np
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import cKDTree

from natix_lib.arrays import Floats, Ints
from natix_lib.data.groups import joined, tree

EARTH_RADIUS_M = 6_371_008.8
ROUNDING_M = 1e-6  # far above the rounding of the arithmetic, far below any receiver: places at the radius are joined
BLOCK = 1 << 21  # distances at a time, some 150 MB
TREE = 1 << 12  # distances between two cubes, above which a k-d tree is faster than all of them


def within_metres(lat: Floats, lon: Floats, metres: float) -> Ints:
    """Join places at most `metres` apart on the ground.

    Args:
        lat: Degrees, (n,); NaN or infinite where unknown.
        lon: Degrees, (n,); NaN or infinite where unknown.
        metres: 0 or less joins nothing.

    Returns:
        A row within reach that each row is linked to, so that components are whole, as `groups.Links.to`, (n,).
    """
    known = np.flatnonzero(np.isfinite(lat) & np.isfinite(lon))
    if not len(known) or metres <= 0:
        return np.arange(len(lat))
    phi, theta = np.radians(lat[known]), np.radians(lon[known])
    points = EARTH_RADIUS_M * np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], axis=1)
    reach = 2 * EARTH_RADIUS_M * np.sin(min(metres / EARTH_RADIUS_M, np.pi) / 2) + ROUNDING_M
    cubes = np.floor(points / (reach / np.sqrt(3) * (1 - 1e-9)))
    order = np.lexsort(cubes.T)
    cubes, points, known = cubes[order], points[order], known[order]
    starts = np.flatnonzero(np.append(True, (np.diff(cubes, axis=0) != 0).any(axis=1)))
    pairs = _joined_cubes(cubes[starts], points, starts, reach)
    sizes = np.diff(np.append(starts, len(known)))
    first = np.repeat(known[starts], sizes)
    return tree(len(lat), np.concatenate([known, known[pairs[:, 0]]]), np.concatenate([first, known[pairs[:, 1]]]))


def metres_between(lat: Floats, lon: Floats, a: Ints | list[int], b: Ints | list[int]) -> Floats:
    """Metres on the ground between the places of rows a and those of rows b, (k,)."""
    phi_a, phi_b, theta_a, theta_b = (np.radians(degrees[rows]) for degrees in (lat, lon) for rows in (a, b))
    chord = np.sin((phi_a - phi_b) / 2) ** 2 + np.cos(phi_a) * np.cos(phi_b) * np.sin((theta_a - theta_b) / 2) ** 2
    metres: Floats = 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(1, chord)))
    return metres


def _joined_cubes(cubes: Floats, points: Floats, starts: Ints, reach: float) -> Ints:
    """Pairs of places within reach that join all cubes that belong together, (k, 2)."""
    sizes = np.diff(np.append(starts, len(points)))
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    pairs = cKDTree(cubes).query_pairs(2.5, p=np.inf, output_type="ndarray")  # a neighbour is at most 2 cubes away
    sure, open_pairs = [], []
    for block in np.array_split(pairs, 1 + len(pairs) // BLOCK):
        a, b = block.T
        gap = np.maximum(np.maximum(low[a] - high[b], low[b] - high[a]), 0)
        block = block[(gap**2).sum(axis=1) <= reach**2]
        near = ((points[starts[block[:, 0]]] - points[starts[block[:, 1]]]) ** 2).sum(axis=1) <= reach**2
        sure.append(block[near])
        open_pairs.append(block[~near])
    links, pairs = starts[np.concatenate(sure)], np.concatenate(open_pairs)
    cube = np.repeat(np.arange(len(cubes)), sizes)
    label = joined(len(cubes), *cube[links].T)
    pairs = pairs[label[pairs[:, 0]] != label[pairs[:, 1]]]
    work = sizes[pairs[:, 0]] * sizes[pairs[:, 1]]
    small = work <= TREE
    links = np.concatenate([links, _near(pairs[small], work[small], points, starts, sizes, reach)])
    label = joined(len(cubes), *cube[links].T)
    large = pairs[~small & (label[pairs[:, 0]] != label[pairs[:, 1]])]
    sets = DisjointSet(np.unique(label[large]).tolist())
    more = []
    for a, b in large.tolist():
        if not sets.connected(int(label[a]), int(label[b])):
            search = cKDTree(points[starts[a] : starts[a] + sizes[a]])
            others = points[starts[b] : starts[b] + sizes[b]]
            metres, nearest = map(np.asarray, search.query(others, distance_upper_bound=np.nextafter(reach, np.inf)))
            if np.isfinite(metres).any():
                sets.merge(int(label[a]), int(label[b]))
                more.append((starts[a] + nearest[metres.argmin()], starts[b] + metres.argmin()))
    return np.concatenate([links, np.array(more, dtype=np.int64).reshape(-1, 2)])


def _near(pairs: Ints, work: Ints, points: Floats, starts: Ints, sizes: Ints, reach: float) -> Ints:
    """Two places within reach of each pair of cubes that has some, all distances computed, (k, 2)."""
    near = np.full((len(pairs), 2), -1)
    total = np.cumsum(work)
    ends = np.searchsorted(total, np.arange(BLOCK, work.sum(), BLOCK))
    for block in np.split(np.arange(len(pairs)), ends):
        pair = np.repeat(block, work[block])
        number = np.arange(len(pair)) - np.repeat(np.cumsum(work[block]) - work[block], work[block])
        a, b = pairs[pair].T
        first, second = starts[a] + number // sizes[b], starts[b] + number % sizes[b]
        close = ((points[first] - points[second]) ** 2).sum(axis=1) <= reach**2
        near[pair[close]] = np.stack([first[close], second[close]], axis=1)
    return near[near[:, 0] >= 0]
