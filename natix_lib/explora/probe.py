"""Before and after: how well frozen features tell classes that adaptation never saw the labels of.

Weighted k nearest neighbours (k = 20, temperature .07; Wu et al. 2018, as DINO and DINOv2 report) and a linear probe
(logistic regression on standardised features). Images of TRAIN that were adapted to are the reference, those of the
groups that were held out (`natix_lib/explora/gate.py`) the question. The
features are the classifier's: CLS token beside the mean patch token.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from natix_lib.arrays import Ints
from natix_lib.backbones.features import Extractor
from natix_lib.config import Dataloader
from natix_lib.training.features import Progress, extract, silent
from natix_lib.training.views import Images, Views
from natix_lib.transform import Transform

NEIGHBOURS, TEMPERATURE = 20, 0.07
BLOCK = 1024  # queries at once

Features = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Probe:
    """Which query images are told right, by each probe, bool (m,)."""

    knn: Bools
    linear: Bools

    @property
    def accuracies(self) -> dict[str, float]:
        """Accuracy of each probe, in [0, 1]."""
        return {"knn": float(self.knn.mean()), "linear": float(self.linear.mean())}

    @property
    def right(self) -> NDArray[np.float64]:
        """Share of the probes that tell an image right, (m,): what two backbones are compared by."""
        share: NDArray[np.float64] = (self.knn.astype(np.float64) + self.linear) / 2
        return share


def features_of(
    backbone: nn.Module,
    images: Images,
    transform: Transform,
    dataloader: Dataloader,
    progress: Progress = silent,
    what: str = "features",
) -> Features:
    """Features of the evaluation views, averaged over views, float32 (n, F), on the backbone's device."""
    features = extract(Extractor(backbone.eval()), Views(images, transform, 0), dataloader, None, progress, what)
    result: Features = features.mean(dim=1).numpy()
    return result


def probe(reference: Features, labels: Ints, query: Features, truth: Ints) -> Probe:
    """Probe features.

    Args:
        reference: Features of labelled images, (n, F).
        labels: Class number of each of them, (n,), at least two classes.
        query: Features of the images to tell, (m, F).
        truth: Class number of each of these, (m,).
    """
    return Probe(knn_right(reference, labels, query, truth), linear_right(reference, labels, query, truth))


def knn_right(reference: Features, labels: Ints, query: Features, truth: Ints, k: int = NEIGHBOURS) -> Bools:
    """Which images are told right by votes of the k nearest by cosine, weighted by exp(cosine / temperature)."""
    bank, queries = (_normalised(values) for values in (reference, query))
    k = min(k, len(bank))
    votes = np.eye(int(max(labels.max(), truth.max())) + 1)[labels]
    predicted = []
    for start in range(0, len(queries), BLOCK):
        cosine = queries[start : start + BLOCK] @ bank.T
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        weight = np.exp((np.take_along_axis(cosine, nearest, axis=1) - 1) / TEMPERATURE)
        predicted.append(np.einsum("qk,qkc->qc", weight, votes[nearest]).argmax(axis=1))
    right: Bools = np.concatenate(predicted) == truth
    return right


def linear_right(reference: Features, labels: Ints, query: Features, truth: Ints) -> Bools:
    """Which images are told right by a logistic regression on standardised features."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the same limit holds before and after
        model.fit(reference, labels)
    right: Bools = model.predict(query) == truth
    return right


def _normalised(values: Features) -> Features:
    result: Features = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return result
