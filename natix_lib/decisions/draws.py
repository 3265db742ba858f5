"""Draws that nobody can turn: lots are hashes of the data, and there is no seed.

A seed can be tried until a certificate appears: the best of 20 gave one that was false in 38 % of simulated trials.
Here each group draws a lot, the BLAKE2 hash of what its rows hold. The order of the rows and the names of the groups
change nothing, and neither does a setting; only other data draws other lots.

A hash of a row alone would not do. Where many rows are alike (few scores, right or wrong), it ranks the same kinds of
rows in the same order in every group, so that all groups show their right rows or all their wrong ones. So the lot
hashes all rows of the group, and counts groups that hold the same: the k-th of them draws its own lot. Which of these
is called the k-th does not matter, because they hold the same.
"""

from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natix_lib.arrays import Bools, Ints
from natix_lib.decisions.score import check_groups
from natix_lib.errors import CalibrationError

Lots = NDArray[np.uint64]


def independent_rows(groups: ArrayLike | None, *content: NDArray[Any]) -> tuple[Ints | slice, str]:
    """The rows that a test may count as independent, and their unit: all and `image`, or one a group and `group`.

    Args:
        groups: Group of each row, (n,); None takes all rows.
        content: What the rows hold, numbers (n,) or (n, K); the draw depends on these and on nothing else.

    Raises:
        CalibrationError: If `groups` breaks its rule or has another length than the content.
    """
    if groups is None:
        return slice(None), "image"
    number, order, starts, lots = _lots(groups, content)
    sizes = np.diff(np.append(starts, len(number)))
    places = starts + (lots % sizes.astype(np.uint64)).astype(np.int64)
    return np.sort(order[places]), "group"


def first_half(groups: ArrayLike | None, *content: NDArray[Any]) -> Bools:
    """Half of the groups, or of the rows, drawn by lot: True for rows of the first half, (n,); raises as above."""
    rows = len(content[0])
    number, _, _, lots = _lots(np.arange(rows) if groups is None else groups, content)
    first = np.zeros(len(lots), dtype=np.bool_)
    first[np.argsort(lots, kind="stable")[: (len(lots) + 1) // 2]] = True
    half: Bools = first[number]
    return half


def _lots(groups: ArrayLike, content: tuple[NDArray[Any], ...]) -> tuple[Ints, Ints, Ints, Lots]:
    """The groups and their lots.

    Returns:
        Group number of each row, (n,); the rows, group by group and within each by what they hold, (n,); where each
        group starts in them, (G,); the lot of each group, (G,).
    """
    if not content or any(len(part) != len(content[0]) for part in content):
        raise CalibrationError(f"content must be of one length, got {[len(part) for part in content]}")
    rows = len(content[0])
    names, number = np.unique(check_groups(groups, rows), return_inverse=True)
    table = np.column_stack([np.asarray(part, dtype=np.float64) for part in content]) + 0.0  # -0.0 is 0.0
    hashes = _hashes(np.ascontiguousarray(table).tobytes(), table.itemsize * table.shape[1] * np.arange(rows + 1))
    order = np.lexsort((hashes, number))
    starts = np.searchsorted(number[order], np.arange(len(names)))
    held = _hashes(hashes[order].tobytes(), hashes.itemsize * np.append(starts, rows))
    by_content = np.argsort(held, kind="stable")
    alike = np.append(True, held[by_content][1:] != held[by_content][:-1])
    runs = np.flatnonzero(alike)
    count = np.empty(len(names), dtype=np.uint64)  # how many groups that hold the same came before
    count[by_content] = np.arange(len(names)) - np.repeat(runs, np.diff(np.append(runs, len(names))))
    pairs = np.column_stack([held, count])
    return number, order, starts, _hashes(pairs.tobytes(), 16 * np.arange(len(names) + 1))


def _hashes(content: bytes, bounds: Ints) -> Lots:
    """The hash of each piece of the content, between one bound and the next."""
    view = memoryview(content)
    ends = bounds.tolist()
    pieces = (blake2b(view[i:j], digest_size=8).digest() for i, j in pairwise(ends))
    return np.frombuffer(b"".join(pieces), dtype="<u8").astype(np.uint64)
