"""Intervals where rows come in groups: whole groups are resampled, and a share is never given more than its data say.

The percentile bootstrap has nothing to resample at an edge: 0 wrong of 9 gave "0.0 to 0.0 %". A share of rows therefore
has the wider of the bootstrap and of the exact interval of Clopper & Pearson at the effective number of rows, which is
Korn & Graubard's (1998, Survey Methodology 24) for clustered samples: n divided by the design effect, and reduced by
the ratio of t quantiles, because few groups tell little about the design effect. The groups that count for that are
those that differ from the rest, a wrong row among right ones: with all groups, as published, 9 to 200 groups of uneven
sizes were covered in as few as 83 % of simulated trials in place of 95. The least that rows can be worth is one row a
group, at uneven sizes Kish's sum(n_g)^2 / sum(n_g^2); that is also what stands where no variance is seen.

Other figures (MCC, F1, AUROC, means of losses) have no exact interval to fall back on. Fewer than `LEAST_GROUPS`
groups, or resamples that all agree, give none: no interval is better than a false one.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, stdtrit

from natix_lib.arrays import Floats, Ints
from natix_lib.decisions.binomial import require_open
from natix_lib.decisions.score import as_array, check_groups, check_scores
from natix_lib.errors import CalibrationError

LEAST_GROUPS = 10  # below, intervals from resampled clusters are too short (Cameron, Gelbach & Miller 2008)
LEAST_FREEDOM = 2  # of t: with one degree, two groups would make any interval the whole range
Interval = tuple[float, float]


def share_interval(sums: ArrayLike, sizes: ArrayLike, confidence: float, least: float = 0.0) -> Interval:
    """Interval for the mean over rows of a figure in [least, 1], 0 for a share, from its sums over groups.

    Args:
        sums: Sum of the figure over the rows of each group, (G,).
        sizes: Rows of each group, (G,); groups without a row are left out.
        confidence: Confidence of both sides together, in (0, 1).
        least: The least value of a row, 0 for a share or -1 for a difference of two.

    Raises:
        CalibrationError: If an argument breaks its rule or no row is there.
    """
    require_open("confidence", confidence)
    n_g = check_scores("sizes", sizes)
    total = check_scores("sums", sums, len(n_g))
    scaled = (total - least * n_g) / (1 - least)  # of figures in [0, 1]
    if (n_g < 0).any() or (scaled < 0).any() or (scaled > n_g).any() or not n_g.any():
        raise CalibrationError("sums must be those of the rows of each group, and one group must have a row")
    differ = min(int((total != 0).sum()), int((total != n_g).sum()))  # groups that say how rows differ
    scaled, n_g = scaled[n_g > 0], n_g[n_g > 0]
    n, alike = float(n_g.sum()), float(n_g.sum() ** 2 / (n_g @ n_g))
    p = float(scaled.sum()) / n
    residual = scaled - p * n_g
    variance = len(n_g) / max(len(n_g) - 1, 1) * float(residual @ residual) / n**2
    tail = (1 - confidence) / 2

    def reduced(rows: float, groups: float) -> float:
        """Rows less what is not known of their design effect from so many groups."""
        return rows * float(stdtrit(n, tail) / stdtrit(max(groups - 1, LEAST_FREEDOM), tail)) ** 2

    if len(n_g) == 1 or variance <= 1e-15 * p * (1 - p):
        effective = alike
    else:
        rows = p * (1 - p) / variance
        effective = max(reduced(min(rows, n) if least == 0 else rows, min(differ, alike)), reduced(alike, alike))
    hits, misses = effective * p, effective * (1 - p)
    low = float(betaincinv(hits, misses + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, misses, 1 - tail)) if misses > 0 else 1.0
    return least + (1 - least) * low, least + (1 - least) * high


def percentile_interval(values: Floats, groups: int, confidence: float) -> Interval | None:
    """Percentiles of the resamples that are finite; None for too few groups or where no two resamples differ."""
    require_open("confidence", confidence)
    finite = values[np.isfinite(values)]
    if groups < LEAST_GROUPS or not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return (float(low), float(high)) if high > low else None


def wider(one: Interval, other: Interval | None) -> Interval:
    """The interval that holds both."""
    return one if other is None else (min(one[0], other[0]), max(one[1], other[1]))


def group_weights(groups: ArrayLike, resamples: int, seed: int) -> tuple[Ints, NDArray[np.int64]]:
    """Bootstrap draws of whole groups.

    Args:
        groups: Group of each row, (n,).
        resamples: Draws B.
        seed: Seed of the draws.

    Returns:
        The group number of each row (n,), and how often each of the G groups is drawn, (B, G).

    Raises:
        CalibrationError: If groups break their rule.
    """
    names, number = np.unique(check_groups(groups), return_inverse=True)
    draws = np.empty((resamples, len(names)), dtype=np.int64)
    for i, counts in enumerate(_drawn(len(names), resamples, seed)):
        draws[i] = counts
    return number.astype(np.int64), draws


def bootstrap_means(
    values: ArrayLike, groups: ArrayLike, resamples: int, seed: int, confidence: float = 0.95
) -> list[Interval | None]:
    """Percentile interval of the mean of each column of `values` (n, K), whole groups resampled.

    The columns share their draws, and one draw at a time is held: a million groups need no table of a thousand times
    as many counts.

    Raises:
        CalibrationError: If an argument breaks its rule.
    """
    names, number = np.unique(check_groups(groups), return_inverse=True)
    table = as_array("values", values)
    if table.ndim != 2:
        raise CalibrationError(f"values must have the shape (n, K), got {table.shape}")
    columns = [check_scores("values", column, len(number)) for column in table.T]
    sizes = np.bincount(number).astype(np.float64)
    of_group = np.stack([*(np.bincount(number, column) for column in columns), sizes])
    sums = np.stack([of_group @ counts for counts in _drawn(len(names), resamples, seed)])
    return [percentile_interval(column, len(names), confidence) for column in (sums[:, :-1] / sums[:, -1:]).T]


def _drawn(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each of `count` groups is drawn, for each resample."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, count, count), minlength=count)
