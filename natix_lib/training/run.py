"""From opened splits and a backbone to a trained classifier and its VAL_SELECT and VAL_CALIB logits.

A backbone without filters gets them first (`training/filters.py`). Frozen backbone: features of all views once, then
head training on them. Tuned backbone (or `feature_cache: false`):
the same loop on pixels. Either way the head's standardisation comes from the clean TRAIN features of the backbone
as it was loaded, which tell whose labels are doubtful as well; the kept weights are those that scored best on
VAL_SELECT, LoRA is added into them, and the logits that are given come from float32 passes through exactly the sums.

Class weights shift what is learnt (`decisions/prior.py`). The shift is taken back in the bias of the head's last layer,
once, in the weights that are kept: everything after it, argmax, scores, accept rule and probabilities, sees corrected
logits. The `val_select/` figures of an epoch are those before the correction: it is fitted on the same
images, so fitted anew in each epoch it would be one more thing that the choice among epochs is too good by, and weights
make the epochs differ by how well they know rare classes, where accuracy after it moves with the commonest one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from natix_lib.backbones.pooling import side_by_side
from natix_lib.contracts import VAL_CALIB, VAL_SELECT
from natix_lib.decisions.prior import NONE, PriorShift, fit_prior_shift
from natix_lib.distributed.world import ALONE, World
from natix_lib.errors import TrainingError
from natix_lib.training.classifier import Classifier, Head
from natix_lib.training.doubtless import Some, found_doubts, undoubted
from natix_lib.training.doubts import Doubts
from natix_lib.training.filters import learn_filters
from natix_lib.training.fit import Epoch, class_weights
from natix_lib.training.fitting import SILENT, Reports, Run
from natix_lib.training.precision import numerics
from natix_lib.training.recipe import GroupedImages, LabelledImages, Recipe, Sets
from natix_lib.training.views import Views


@dataclass(frozen=True)
class Trained:
    """A trained classifier, its curve, float32 logits (n, C) from exactly its weights, doubtful labels of TRAIN, and
    how class weights were taken back, None where there were none; `grid` is the table of heads that were tried, None
    where it was one.
    """

    classifier: Classifier
    history: list[Epoch]
    val_select_logits: NDArray[np.float32]
    val_calib_logits: NDArray[np.float32]
    doubts: Doubts
    prior: PriorShift | None
    grid: list[dict[str, Any]] | None = None


def train_classifier(
    backbone: nn.Module,
    backbone_sha256: str,
    sets: Sets,
    recipe: Recipe,
    reports: Reports = SILENT,
    world: World = ALONE,
) -> Trained:
    """Train on TRAIN, stop and choose on VAL_SELECT, give logits on VAL_SELECT and VAL_CALIB.

    Several processes divide the passes through the backbone and, when it is tuned, each batch; every one returns the
    same.

    Args:
        backbone: A loaded backbone; moved to the device and, when it is tuned, changed in place.
        backbone_sha256: Changes whenever a weight does; part of what cached features are kept by.
        sets: The images of each role.
        recipe: How to train.
        reports: Who is told how far it is.
        world: This process's place among those that train together.

    Returns:
        The classifier, on the CPU.

    Raises:
        TrainingError: If a feature, loss, weight or logit is not finite, or dropping doubtful labels would leave a
            class without images.
    """
    with numerics(recipe.training.determinism, world.device):
        torch.manual_seed(recipe.training.seed)
        return _trained(backbone, backbone_sha256, sets, recipe, reports, world)


def _trained(
    backbone: nn.Module, backbone_sha256: str, sets: Sets, recipe: Recipe, reports: Reports, world: World
) -> Trained:
    model, training, device = recipe.model, recipe.training, world.device
    pooling = side_by_side(training.grid.pooling or [model.pooling])
    classifier = Classifier(backbone, sets.classes, model.head_type, model.dropout_rate, pooling).to(device).eval()
    classifier.backbone.requires_grad_(False)
    look = Views(sets.train, recipe.transform, training.seed)
    learnt = learn_filters(classifier.backbone, look, recipe.dataloader, reports.progress, world)
    run = Run(classifier, learnt or backbone_sha256, sets, recipe, reports, world)
    clean = run.features(sets.train, (), "features of TRAIN")
    classifier.head.standardise(clean)
    doubts = found_doubts(clean, sets, training, world)
    train: LabelledImages = sets.train
    if training.label_doubts == "drop":
        rows = undoubted(sets, doubts, world)
        train, clean = Some(sets.train, rows), run.rows_of(clean, rows)
    weights = class_weights(run.numbers(train), sets.classes, training.class_weights)
    fitted = run.on_features(train, clean, weights) if run.cached else run.on_pixels(train, weights)
    classifier.eval()
    world.copy_first(classifier)  # a head on cached features was trained by each process for itself
    select_logits = _finite(run.select_logits(fitted.select), VAL_SELECT)
    prior = None if weights is None else _taken_back(classifier.head, select_logits, sets.val_select, weights)
    if prior is not None:
        select_logits += prior.shift.astype(np.float32)
        world.copy_first(classifier.head)  # each process has fitted it for itself
    calib_logits = _finite(run.logits(sets.val_calib, VAL_CALIB), VAL_CALIB)
    classifier.cpu().requires_grad_(False)
    return Trained(classifier, fitted.history, select_logits, calib_logits, doubts, prior, fitted.grid)


def _finite(logits: Tensor, role: str) -> NDArray[np.float32]:
    if not torch.isfinite(logits).all():
        raise TrainingError(f"the trained classifier gives a {role} logit that is not finite")
    values: NDArray[np.float32] = logits.float().cpu().numpy()
    return values


def _taken_back(head: Head, logits: NDArray[np.float32], select: GroupedImages, weights: Tensor) -> PriorShift | None:
    """Shift the logits of `head` by what undoes the class weights; None where they are equal and nothing changes."""
    prior = fit_prior_shift(logits, select.labels, weights.cpu().numpy(), select.groups)
    if prior.status == NONE:
        return None
    head.shift_logits(torch.from_numpy(prior.shift).to(weights))
    return prior
