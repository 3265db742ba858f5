"""What a training is given: the images of each role, and how to train."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from natix_lib.config import Dataloader, Model, Training
from natix_lib.training.views import Images
from natix_lib.transform import Transform


class LabelledImages(Images, Protocol):
    """A split role with labels."""

    labels: NDArray[np.int64]


class GroupedImages(LabelledImages, Protocol):
    """A split role with labels and groups."""

    groups: list[str]


@dataclass(frozen=True)
class Sets:
    """The images of a run.

    Attributes:
        train: What weights are fitted on.
        val_select: What the epoch to keep is chosen on; the classifier's logits are given for it.
        val_calib: What nothing is chosen on and the classifier's logits are given for.
        classes: How many classes the labels are of, C.
        fingerprint: Changes whenever an image does; part of what cached features are kept by.
    """

    train: GroupedImages
    val_select: GroupedImages
    val_calib: LabelledImages
    classes: int
    fingerprint: str


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        model: The head, and whether the backbone is tuned.
        training: Epochs, optimiser, seed, feature cache.
        dataloader: Images of a batch, over all processes, and decoding processes.
        transform: Turns an image into what the classifier takes.
    """

    model: Model
    training: Training
    dataloader: Dataloader
    transform: Transform
