"""Labels of TRAIN that are likely wrong: found by one process, and the images that are left where they are dropped."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from natix_lib.config import Training
from natix_lib.distributed.world import World
from natix_lib.errors import TrainingError
from natix_lib.training.doubts import Doubts, label_doubts
from natix_lib.training.recipe import LabelledImages, Sets


def found_doubts(clean: Tensor, sets: Sets, training: Training, world: World) -> Doubts:
    """The doubtful labels of TRAIN by its clean features (n, views, F); the first process finds them."""
    images = len(sets.train)
    if training.label_doubts == "off" or not world.first:
        return Doubts.none(images, "training.label_doubts is off" if world.first else "the first process judges")
    features = clean.mean(dim=1).numpy()
    return label_doubts(features, sets.train.labels, sets.train.groups, sets.classes, training.seed)


def undoubted(sets: Sets, doubts: Doubts, world: World) -> NDArray[np.int64]:
    """The rows of TRAIN whose labels are not doubtful."""
    doubtful = torch.zeros(len(sets.train))
    doubtful[doubts.rows] = 1
    rows: NDArray[np.int64] = np.flatnonzero(world.summed(doubtful).numpy() == 0)
    gone = sorted(set(sets.train.labels.tolist()) - set(sets.train.labels[rows].tolist()))
    if gone:
        raise TrainingError(
            f"training.label_doubts: drop would leave class number {gone[0]} without images in TRAIN, as all its "
            "labels are doubtful: look at them with show"
        )
    return rows


class Some:
    """Some rows of a split role."""

    def __init__(self, images: LabelledImages, rows: NDArray[np.int64]) -> None:
        self.images, self.rows = images, rows.tolist()
        self.ids = [images.ids[row] for row in self.rows]
        self.labels = images.labels[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> Image.Image:
        return self.images.image(self.rows[index])
