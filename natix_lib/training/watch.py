"""What is watched on VAL_SELECT: the figures of an epoch, and which of two epochs is the better one.

All four figures are of the logits before class weights are taken back, for the reason that `run.py` gives. Accuracy is
the default because it is what the kept policy is about; where a class is rare, an epoch that never names it can have
the best accuracy, and macro-F1, to which each class counts alike, or Matthews' correlation sees it. A tie of the
monitored figure is broken by the lower loss: accuracy and F1 are steps of a few images on a small VAL_SELECT, the loss
is not. A tie that the loss breaks is a better epoch to keep, but no progress: patience counts the monitored figure.

torchmetrics was rejected: the counts below are four lines, and its macro-F1 gives a class without label and prediction
a zero or one by the version.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from natix_lib.config import EarlyStopping
from natix_lib.decisions.matthews import matthews


class Figures(NamedTuple):
    """Of logits and labels: mean cross-entropy in nats, accuracy and macro-F1 in [0, 1], Matthews in [-1, 1]."""

    loss: float
    acc: float
    macro_f1: float
    mcc: float


class Watched(Protocol):
    """A row of figures on VAL_SELECT, such as `fit.Epoch`; the units are those of `Figures`."""

    @property
    def val_select_loss(self) -> float: ...
    @property
    def val_select_acc(self) -> float: ...
    @property
    def val_select_macro_f1(self) -> float: ...
    @property
    def val_select_mcc(self) -> float: ...


Row = TypeVar("Row", bound=Watched)


def figures(logits: Tensor, labels: Tensor) -> Figures:
    """The figures of logits (n, C) for class numbers (n,), n at least 1; no class weighs more than another.

    Macro-F1 is the mean over the classes with a label or a prediction, scikit-learn's rule; Matthews' correlation is
    Gorodkin's R_K, 0 where labels or predictions are all of one class.
    """
    logits = logits.detach()
    loss, right = cross_entropy(logits.double(), labels), logits.argmax(1) == labels
    truth, answer, hit = (values.cpu().numpy() for values in (labels, logits.argmax(1), right))
    true, answered, hits = (np.bincount(rows, minlength=logits.shape[1]) for rows in (truth, answer, truth[hit]))
    there = true + answered > 0
    f1 = np.mean(2 * hits[there] / (true + answered)[there])
    mcc = matthews(hits, true, answered, len(hit))
    return Figures(float(loss), float(right.double().mean()), float(f1), float(mcc))


def monitored(row: Watched, stopping: EarlyStopping) -> float:
    """The figure of `stopping.monitor` in a row, in the figure's own unit."""
    value: float = getattr(row, stopping.monitor.replace("/", "_"))
    return value


def ranked(row: Watched, stopping: EarlyStopping) -> tuple[float, float]:
    """What rises as rows get better: the monitored figure, negated where less is better, then the loss, negated."""
    value = monitored(row, stopping)
    mode = stopping.fitting_mode if stopping.mode == "auto" else stopping.mode
    return (value if mode == "max" else -value), -row.val_select_loss


def compared(row: Row, best: Row | None, stopping: EarlyStopping) -> tuple[bool, bool]:
    """Whether a row is better than the best so far, and whether it is so by the monitored figure itself."""
    if best is None:
        return True, True
    rank, before = ranked(row, stopping), ranked(best, stopping)
    return rank > before, rank[0] > before[0]


def best_epoch(history: Iterable[Row], stopping: EarlyStopping) -> Row:
    """The row whose weights `fit` keeps; the first of those that are equally good."""
    return max(history, key=lambda row: ranked(row, stopping))
