"""Whether adaptation has helped: a gain of the probes beyond noise, by groups, on images that it did not see.

A share of TRAIN's groups is held out of adaptation, in no form of theirs: neither images of TRAIN nor images without
a label of the same group. The rest of TRAIN is the probes' reference. VAL_SELECT is not asked, as it chooses the epoch
of train, nor are folds of images that were adapted to: features that have seen an image flatter it.

Both backbones answer the same images, so what counts is each group's difference, and images of a group are one
observation. The interval and the decision are one computation: with differences that are symmetric about the true
gain, the means over random subsets of the groups are typical values (Hartigan, JASA 64, 1969): the share of subsets
whose mean is at most 0 is the p-value of the sign-flip test over groups, exact for any number of them, and its
quantiles bound the gain. A bootstrap over groups was rejected: with few groups it promises more than it keeps.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natix_lib.arrays import Ints
from natix_lib.errors import ConfigError
from natix_lib.files import sha256_bytes

Floats = NDArray[np.float64]

LEVEL = 0.05  # one-sided; the convention of tests
LEAST_GROUPS = math.ceil(-math.log2(LEVEL))  # with fewer, no difference reaches the level
EXACT = 13  # groups up to which every subset is taken
SUBSETS = 9_999  # drawn where there are more groups; with the empty one 10,000
BLOCK = 500  # subsets at once


@dataclass(frozen=True)
class Gain:
    """The gain in accuracy from before to after, in [-1, 1].

    Attributes:
        mean: Over all images asked.
        low: Below it the true gain lies with a probability of at most `LEVEL`; -1 where the groups bound nothing.
        high: Above it likewise; 1 where the groups bound nothing.
        p: Probability of such a gain, or a larger one, where there is none.
    """

    mean: float
    low: float
    high: float
    p: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the gain is above 0 at `LEVEL`; then `low` is above 0 as well."""
        return self.p <= LEVEL


def held_out(groups: Sequence[str], labels: Ints, share: float) -> frozenset[str]:
    """The groups that the probes ask about.

    Groups are taken in the order of their names' SHA-256, so a group's place does not depend on the others; one is
    passed over when it would leave a class without an image in the rest.

    Args:
        groups: Group of each image.
        labels: Class number of each image, (n,).
        share: Share of the groups to hold out, in (0, 1); at least one is.

    Raises:
        ConfigError: If no group can be held out.
    """
    of_group: dict[str, Counter[int]] = {}
    for group, label in zip(groups, labels.tolist(), strict=True):
        of_group.setdefault(group, Counter())[label] += 1
    left = Counter(labels.tolist())
    held: set[str] = set()
    for group in sorted(of_group, key=lambda name: sha256_bytes(name.encode())):
        if len(held) >= max(1, round(share * len(of_group))):
            break
        if all(left[label] > count for label, count in of_group[group].items()):
            left -= of_group[group]
            held.add(group)
    if not held:
        raise ConfigError(
            f"explora.probe_share {share} can hold out none of the {len(of_group)} groups of TRAIN: "
            "each has the only images of a class"
        )
    return frozenset(held)


def require_groups(held: int, groups: int, promote: str) -> None:
    """Refuse, before any work, an adaptation that could not be promoted whatever it gained.

    Raises:
        ConfigError: Naming the rule and the number of groups.
    """
    if promote == "better" and held < LEAST_GROUPS:
        raise ConfigError(
            f"explora.promote better needs at least {LEAST_GROUPS} groups to ask about, explora.probe_share gives "
            f"{held} of the {groups} groups of TRAIN: raise it, or take the adapted backbone with promote always"
        )


def gain(before: Floats, after: Floats, groups: Sequence[str], seed: int) -> Gain:
    """The gain of one backbone over another on the same images.

    Args:
        before: How right the first one is on each image, in [0, 1], (n,), n at least 1.
        after: How right the second one is, (n,).
        groups: Group of each image.
        seed: Seed of the subsets that are drawn.
    """
    _, of_image = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(of_image).astype(np.float64)
    differences = np.bincount(of_image, weights=after - before).astype(np.float64)
    means = np.sort(_subset_means(differences, sizes, seed))
    total = len(means) + 1  # the empty subset bounds nothing and counts against every gain
    beyond = math.floor(LEVEL * total) - 1  # subsets beyond a bound, besides the empty one
    return Gain(
        mean=float(differences.sum() / sizes.sum()),
        low=float(means[beyond]) if beyond >= 0 else -1.0,
        high=float(means[-1 - beyond]) if beyond >= 0 else 1.0,
        p=(1 + int((means <= 0).sum())) / total,
    )


def _subset_means(differences: Floats, sizes: Floats, seed: int) -> Floats:
    """Mean difference of an image over subsets of the groups that are not empty: over all, or over some drawn."""
    count = len(sizes)
    sums = np.stack([differences, sizes], axis=1)
    if count <= EXACT:
        of_subsets = (np.arange(1, 2**count)[:, None] >> np.arange(count) & 1) @ sums
    else:
        generator = np.random.default_rng(seed)
        blocks = [min(BLOCK, SUBSETS - start) for start in range(0, SUBSETS, BLOCK)]
        of_subsets = np.concatenate([generator.integers(0, 2, (n, count), dtype=np.int8) @ sums for n in blocks])
        of_subsets = of_subsets[of_subsets[:, 1] > 0]
    means: Floats = of_subsets[:, 0] / of_subsets[:, 1]
    return means
