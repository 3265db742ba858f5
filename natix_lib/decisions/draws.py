"""Draws that nobody can turn: lots are hashes of the data, and there is no seed.

A seed can be tried until a certificate appears: the best of 20 gave one that was false in 38 % of simulated trials.
Here each group draws a lot, the BLAKE2 hash of what its rows hold. The order of the rows and the names of the groups
change nothing, and neither does a setting; only other data draws other lots.

A hash of a row alone would not do. Where many rows are alike (few scores, right or wrong), it ranks the same kinds of
rows in the same order in every group, so that all groups show their right rows or all their wrong ones. So the lot
hashes all rows of the group, and counts groups that hold the same: the k-th of them draws its own lot. Which of these
is called the k-th does not matter, because they hold the same.

**Rows as frequent as in use** (`rows_at_prior`). Rows that are iid under one class prior are, given their labels,
independent draws of what images of each class look like, p(x | y); where only the prior changes (label shift), so are
the images in use. Take m by the counts n_y alone, draw (N_y) from Multinomial(m, prior), and take N_y rows of each
class without a look at them: were there always enough rows, this would be exactly an iid sample of size m under the new
prior, and a procedure that is wrong with a probability of at most d on such samples would be so here. A draw that does
not fit (some N_y > n_y) is drawn again, and m is the largest at which that happens with a probability of at most
`MISFIT`. So the sample has the law of an iid one given that it fits, and

    P(wrong | fits) = P(wrong and fits) / P(fits) <= d / (1 - MISFIT):

a procedure that is run with d = (1 - MISFIT) delta keeps delta exactly, whatever the labels were. With groups, one row
of each is drawn first, and p(x | y) is the law of that row.

Keeping each row with a probability in proportion to prior / share was rejected: it is exact for the shares of the
population, which nobody knows, and the shares of the same rows make the counts depend on each other. Weighting the rows
was rejected: a weighted binomial has no exact test.
"""

from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtrc

from natix_lib.arrays import Bools, Floats, Ints
from natix_lib.decisions.score import check_groups
from natix_lib.errors import CalibrationError

MISFIT = 0.01  # of the draws at a prior at most so many do not fit: delta is cut by as much, and m is hardly smaller
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


def rows_at_prior(labels: Ints, prior: Floats, *content: NDArray[Any]) -> Ints:
    """Rows drawn so that they are iid with classes as frequent as `prior` says; see the module.

    Args:
        labels: Class number of each row, in 0..C-1, (n,), of rows that are independent.
        prior: Share of each class, at least 0, summing to 1, (C,); a class of share 0 is left out.
        content: What the rows hold, as in `independent_rows`.

    Returns:
        Row numbers, rising, (m,), none twice.

    Raises:
        CalibrationError: If a class with a share has no row, naming its number.
    """
    classes = np.flatnonzero(prior > 0)
    counts = np.bincount(labels, minlength=len(prior))[classes]
    if not counts.all():
        raise CalibrationError(f"class number {classes[counts.argmin()]} has a share and no row to draw")
    shares = prior[classes] / prior[classes].sum()
    lots = _lots(np.arange(len(labels)), (labels, *content))[3]
    in_order = np.argsort(lots, kind="stable")  # of what they hold and not of where they stand
    bits = np.random.PCG64(int.from_bytes(blake2b(lots[in_order].tobytes(), digest_size=16).digest(), "little"))
    shuffled = in_order[np.argsort(bits.random_raw(len(labels)), kind="stable")]
    m = _most_that_fit(counts, shares)
    while True:
        uniform = (bits.random_raw(m) >> np.uint64(11)) * 2.0**-53
        places = np.searchsorted(np.cumsum(shares)[:-1], uniform, side="right")
        wanted = np.bincount(places, minlength=len(classes))
        if (wanted <= counts).all():
            break
    of_class = [shuffled[labels[shuffled] == c][:take] for c, take in zip(classes, wanted, strict=True)]
    return np.sort(np.concatenate(of_class))


def _most_that_fit(counts: Ints, shares: Floats) -> int:
    """The largest size of a multinomial draw that exceeds the counts with a probability of at most `MISFIT`."""
    low, high = 1, int(counts.sum()) + 1  # one row always fits, more than all never do
    while high - low > 1:
        m = (low + high) // 2
        beyond = counts < m
        fits = bdtrc(counts[beyond], m, shares[beyond]).sum() <= MISFIT
        low, high = (m, high) if fits else (low, m)
    return low


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
