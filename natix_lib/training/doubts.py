"""Which labels of TRAIN are likely wrong: confident learning on the features of the backbone as it was loaded.

Confident learning (Northcutt, Jiang and Chuang 2021, JAIR 70): every image is judged by a classifier that has not seen
it, a logistic regression on standardised features in five folds that keep groups whole, so that frames of one drive do
not vouch for each other. The threshold of a class is the mean probability that its own images give it. An image is
doubtful when another class is its most likely one and reaches that class's threshold; the least probable label, less
the most probable other one, comes first. The features are there whatever is trained: the head's standardisation comes
from them, so no further pass is made, and a tuned backbone is judged by what it was before it saw the labels.

cleanlab, the authors' library, was rejected: given the same probabilities it finds the same images in the same order
(benchmarks/label_doubts.py runs both), so it would bring two packages for twenty lines; its own cross-validation knows
no groups, and where 15 frames of a drive are wrong at once, its first 5 % hold .29 of these, natix's .67. Its estimate
of how many labels of each class are wrong, by which it prunes, is not wanted: a page says what to look at first, and
where to stop is told by who looks. What it costs is bounded: each fold is fitted on a sample of images and of
features, and all images are judged.
"""

import heapq
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natix_lib.arrays import Ints

FOLDS = 5
STRENGTH = 0.1  # inverse of the regularisation's, that of adapt's probe
ITERATIONS = 300
MOST_ROWS, MOST_FEATURES = 20_000, 1_024  # that a fold is fitted on
MOST_WORK = 400_000_000  # rows x features x classes of a fit: about half a minute for all folds on two cores
ROWS_A_CLASS = 20  # in a fit, at the least


@dataclass(frozen=True)
class Doubts:
    """What confident learning says of n labels.

    Attributes:
        images: How many labels there are, n.
        judged: How many could be judged: the class of an image must lie in more groups than its own.
        rows: The row of each doubtful label, the most doubtful first, (m,).
        suggested: Number of its most likely class, (m,).
        probabilities: Of the given and of the suggested class, each in [0, 1], (m, 2).
        reason: Why nothing was judged; "" where something was.
        sample: What a fold was fitted on where that is a sample; "" where it is all.
    """

    images: int
    judged: int
    rows: list[int]
    suggested: list[int]
    probabilities: list[tuple[float, float]]
    reason: str = ""
    sample: str = ""

    @classmethod
    def none(cls, images: int, reason: str) -> "Doubts":
        """Nothing of `images` labels was judged, for this reason."""
        return cls(images, 0, [], [], [], reason)


def label_doubts(
    features: NDArray[np.float32], labels: Ints, groups: Sequence[str], classes: int, seed: int = 0
) -> Doubts:
    """Find labels that are likely wrong.

    Args:
        features: Features of the images, (n, F).
        labels: Class number of each, (n,).
        groups: Group name of each, n.
        classes: How many classes there are, C.
        seed: Decides the folds, and the sample where one is drawn.

    Returns:
        The doubtful labels, or why none could be judged.
    """
    if reason := not_judged(features.shape[1], groups, classes):
        return Doubts.none(len(labels), reason)
    given, sample = out_of_fold(features, labels, groups, classes, seed)
    of_label = given[np.arange(len(labels)), labels]
    rows = np.flatnonzero(~np.isnan(of_label))
    if not len(rows):
        return Doubts.none(len(labels), "no class lies in two groups")
    doubtful, suggested = confident(np.nan_to_num(given[rows]), labels[rows])  # NaN: a class that no other fold has
    order = rows[doubtful]
    pairs = zip(of_label[order].tolist(), given[order, suggested].tolist(), strict=True)
    return Doubts(len(labels), len(rows), order.tolist(), suggested.tolist(), list(pairs), "", sample)


def not_judged(width: int, groups: Sequence[str], classes: int) -> str:
    """Why labels cannot be judged; "" where they can."""
    if len(set(groups)) < 2:
        return "TRAIN is one group, and images of one group cannot vouch for each other"
    width = min(width, MOST_FEATURES)
    if MOST_WORK // (width * classes) < ROWS_A_CLASS * classes:
        return f"{classes} classes with {width} features are more than fits the time for this"
    return ""


def confident(probabilities: NDArray[np.float64], labels: Ints) -> tuple[Ints, Ints]:
    """The rule of confident learning.

    Args:
        probabilities: Out-of-fold probability of every class, (n, C).
        labels: Class number of each image, (n,).

    Returns:
        Rows of the doubtful labels, the smallest normalised margin first, and the suggested class of each, both (m,).
    """
    of_label = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, weights=of_label, minlength=probabilities.shape[1])
    thresholds = np.divide(sums, counts, out=np.full(len(sums), np.inf), where=counts > 0)
    likely = probabilities.argmax(axis=1)
    highest = probabilities.max(axis=1)
    rows = np.flatnonzero((likely != labels) & (highest >= thresholds[likely]))
    rows = rows[np.argsort(of_label[rows] - highest[rows], kind="stable")]
    return rows, likely[rows]


def out_of_fold(
    features: NDArray[np.float32], labels: Ints, groups: Sequence[str], classes: int, seed: int
) -> tuple[NDArray[np.float64], str]:
    """The probability of each class for each image, by a model that has seen no image of its group.

    Args:
        features: Features of the images, (n, F).
        labels: Class number of each, (n,).
        groups: Group name of each, n, at least two distinct ones.
        classes: How many classes there are, C.
        seed: Decides the folds and the samples.

    Returns:
        The probabilities, (n, C), NaN for a class that a model has not seen; and the words of `Doubts.sample`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(seed)
    columns = np.sort(generator.permutation(features.shape[1])[:MOST_FEATURES])
    most = min(MOST_ROWS, MOST_WORK // (len(columns) * classes))
    folds = fold_numbers(labels, groups, generator)
    probabilities = np.full((len(labels), classes), np.nan)
    for fold in range(FOLDS):
        held, seen = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        sample = np.sort(generator.permutation(seen)[:most])
        if not len(held) or len(np.unique(labels[sample])) < 2:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=ITERATIONS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the limit is part of the bound
            model.fit(features[np.ix_(sample, columns)], labels[sample])
        probabilities[np.ix_(held, model.classes_)] = model.predict_proba(features[np.ix_(held, columns)])
    least = len(labels) - int(np.bincount(folds).max())
    if most >= least and len(columns) == features.shape[1]:
        return probabilities, ""
    return probabilities, f"{min(most, least)} images and {len(columns)} of {features.shape[1]} features"


def fold_numbers(labels: Ints, groups: Sequence[str], generator: np.random.Generator) -> Ints:
    """The fold of each image, such that groups are whole and folds alike in size and classes.

    The groups whose commonest class is the same go, by falling size, each to the fold that has the fewest images of
    such groups so far. scikit-learn's StratifiedGroupKFold weighs all classes of each group, and takes 48 CPU seconds
    for 100,000 groups where this takes less than one.

    Args:
        labels: Class number of each image, (n,).
        groups: Group name of each, n.
        generator: Orders groups of one size.

    Returns:
        Numbers below `FOLDS`, (n,).
    """
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    pairs, counts = np.unique(np.stack([numbers, labels]), axis=1, return_counts=True)
    by_count = np.argsort(counts, kind="stable")
    commonest = np.zeros(int(numbers.max()) + 1, dtype=np.int64)
    commonest[pairs[0, by_count]] = pairs[1, by_count]  # the last one written is the commonest
    sizes = np.bincount(numbers)
    shuffled = generator.permutation(len(sizes))
    order = shuffled[np.lexsort((-sizes[shuffled], commonest[shuffled]))]
    fold_of = np.zeros(len(sizes), dtype=np.int64)
    filled = [0] * FOLDS
    heap: list[tuple[int, int, int]] = []  # images of groups of this class in a fold, of all groups, and the fold
    last = -1
    for group in order.tolist():
        if commonest[group] != last:
            last = int(commonest[group])
            heap = sorted((0, images, fold) for fold, images in enumerate(filled))
        of_class, images, fold = heap[0]
        fold_of[group] = fold
        filled[fold] = images + int(sizes[group])
        heapq.heapreplace(heap, (of_class + int(sizes[group]), filled[fold], fold))
    result: Ints = fold_of[numbers]
    return result
