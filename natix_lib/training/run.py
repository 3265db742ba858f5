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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from natix_lib.contracts import VAL_CALIB, VAL_SELECT
from natix_lib.decisions.prior import NONE, PriorShift, fit_prior_shift
from natix_lib.distributed.world import ALONE, World
from natix_lib.errors import TrainingError
from natix_lib.training.checks import explained, finite_features
from natix_lib.training.classifier import Classifier, Head
from natix_lib.training.doubtless import Some, found_doubts, undoubted
from natix_lib.training.doubts import Doubts
from natix_lib.training.features import Progress, batch_features, cache_key, silent
from natix_lib.training.filters import learn_filters
from natix_lib.training.fit import Epoch, Objective, class_weights, fit
from natix_lib.training.grid import Bank, Chosen, fit_grid, points
from natix_lib.training.kept import drawing_once, feature_cache, keeper_of, labelled_sha256
from natix_lib.training.mixing import Mixup
from natix_lib.training.passes import Passes
from natix_lib.training.recipe import GroupedImages, LabelledImages, Recipe, Sets
from natix_lib.training.tuning import begin_tuning, end_tuning
from natix_lib.training.views import Images, Views
from natix_lib.training.watch import Figures, figures


@dataclass(frozen=True)
class Reports:
    """Who is told how far a run is: `progress` within a pass over images, `on_epoch` after each epoch."""

    progress: Progress = silent
    on_epoch: Callable[[Epoch], None] = lambda row: None


SILENT = Reports()


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
    grid: list[dict[str, float]] | None = None


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
    model, training = recipe.model, recipe.training
    device = world.device
    autocast = None
    if device.type == "cuda" and training.mixed_precision.enabled:
        autocast = getattr(torch, training.mixed_precision.dtype)
    seed_everything(training.seed)
    classifier = Classifier(backbone, sets.classes, model.head_type, model.dropout_rate).to(device).eval()
    classifier.backbone.requires_grad_(False)
    cache = feature_cache(training, recipe.dataloader.batch_size)
    look = Views(sets.train, recipe.transform, training.seed)
    backbone_sha256 = (
        learn_filters(classifier.backbone, look, recipe.dataloader, reports.progress, world) or backbone_sha256
    )
    keeper = keeper_of(training, _identity(backbone_sha256, sets, recipe), world)
    sampled = training.class_weights == "sampled"
    mixup = Mixup(training.mixup, sets.classes, training.seed) if training.mixup else None
    passes = Passes(recipe.transform, training.seed, recipe.dataloader, world, sampled, mixup)

    def features(images: Images, numbers: tuple[int, ...], what: str) -> Tensor:
        views = Views(images, recipe.transform, training.seed, numbers)
        rows = world.share(len(images))
        ids = images.ids[rows.start : rows.stop]

        def passed(chosen: Sequence[int]) -> Iterator[Tensor]:
            done = 0
            shared = [rows[number] for number in chosen]
            for part in batch_features(classifier.backbone, views, recipe.dataloader, autocast, shared):
                of_part = [images.ids[row] for row in shared[done : done + len(part)]]
                done += len(part)
                yield finite_features(part, of_part, what, autocast)

        with drawing_once():
            part = cache.get_or_extract(
                len(rows),
                lambda part: cache_key(backbone_sha256, sets.fingerprint, views, ids[part], str(autocast)),
                passed,
                lambda done: reports.progress(what, done, len(rows)),
            )
        none = torch.empty(0, views.count, classifier.head.width)  # a share of images may be none
        return world.gathered(torch.cat([none, *part]), len(images))

    select_labels = torch.from_numpy(np.array(sets.val_select.labels)).to(device)
    ema_decay = model.ema_decay if model.use_ema else None
    clean = features(sets.train, (), "features of TRAIN")
    classifier.head.standardise(clean.mean(dim=1).to(device))
    doubts = found_doubts(clean, sets, training, world)
    train: LabelledImages = sets.train
    if training.label_doubts == "drop":
        rows = undoubted(sets, doubts, world)
        train, clean = Some(sets.train, rows), clean[rows]
    train_labels = torch.from_numpy(np.array(train.labels)).to(device)
    weights = class_weights(train_labels, sets.classes, training.class_weights)
    in_loss = None if sampled else weights
    steps_an_epoch = passes.steps_an_epoch(len(train))

    select: Tensor | None = None
    grid: Chosen | None = None
    if model.freeze_backbone and training.feature_cache:
        bank = clean
        if training.views > 1:
            numbers = tuple(range(1, training.views))
            bank = torch.cat([bank, features(train, numbers, "augmented features of TRAIN")], dim=1)
        with explained("training.views", training.views, recipe.dataloader.num_workers):
            bank = bank.to(device)
        select = known = features(sets.val_select, (), "features of VAL_SELECT").to(device)
        if len(tried := points(training, model.dropout_rate)) > 1:
            drawn = partial(passes.feature_batches, bank, train_labels)
            compared = Bank(drawn, steps_an_epoch, known, select_labels, sets.val_select.groups, in_loss)
            grid = fit_grid(classifier.head, tried, compared, training, ema_decay, reports.on_epoch)
            history = grid.history
        else:
            objective = Objective(
                lambda epoch, start: passes.feature_batches(bank, train_labels, epoch, start),
                steps_an_epoch,
                in_loss,
                lambda: _score(classifier.head, lambda: classifier.head(known).mean(dim=1), select_labels),
                keeper=keeper,
            )
            history = fit(classifier.head.train(), objective, training, ema_decay, reports.on_epoch)
    else:
        if not model.freeze_backbone:
            begin_tuning(classifier.backbone, training.fine_tune, training.seed)
        if world.size > 1:
            torch.manual_seed(training.seed + world.rank)  # another dropout for each share
        objective = Objective(
            lambda epoch, start: passes.pixel_batches(train, train_labels, epoch, start, reports.progress),
            steps_an_epoch,
            in_loss,
            lambda: _score(classifier, lambda: passes.logits(classifier, sets.val_select, autocast), select_labels),
            training.fine_tune.layer_decay,
            training.fine_tune.device_batch_size,
            keeper,
        )
        whole = _TrainMode(classifier, tune=not model.freeze_backbone)
        history = fit(whole, objective, training, ema_decay, reports.on_epoch, autocast, world)
        end_tuning(classifier.backbone)
    classifier.eval()
    world.copy_first(classifier)  # a head on cached features was trained by each process for itself
    if select is not None and autocast is None:  # what a float32 pass would give
        with torch.no_grad():
            of_select = classifier.head(select).mean(dim=1)
    else:
        of_select = passes.logits(classifier, sets.val_select, None, reports.progress, f"logits of {VAL_SELECT}")
    select_logits = _finite(of_select, VAL_SELECT)
    prior = None if weights is None else _taken_back(classifier.head, select_logits, sets.val_select, weights)
    if prior is not None:
        select_logits += prior.shift.astype(np.float32)
        world.copy_first(classifier.head)  # each process has fitted it for itself
    of_calib = passes.logits(classifier, sets.val_calib, None, reports.progress, f"logits of {VAL_CALIB}")
    calib_logits = _finite(of_calib, VAL_CALIB)
    return Trained(
        classifier.cpu().requires_grad_(False),
        history,
        select_logits,
        calib_logits,
        doubts,
        prior,
        grid.table if grid else None,
    )


def _identity(backbone_sha256: str, sets: Sets, recipe: Recipe) -> dict[str, object]:
    """What the weights depend on beside the section training."""
    roles = {"train": sets.train, "val_select": sets.val_select}
    return {
        "backbone": backbone_sha256,
        "dataset": sets.fingerprint,
        **{role: labelled_sha256(images.ids, images.labels, images.groups) for role, images in roles.items()},
        "classes": sets.classes,
        "model": recipe.model.model_dump(mode="json"),
        "batch_size": recipe.dataloader.batch_size,
        "transform": recipe.transform.document(),
    }


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


def seed_everything(seed: int) -> None:
    """Seed torch and ask it for deterministic algorithms."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


class _TrainMode(nn.Module):
    """Train the head, and the backbone when `tune`; frozen, it stays in eval mode (its RoPE is random in train)."""

    def __init__(self, classifier: Classifier, tune: bool) -> None:
        super().__init__()
        self.classifier = classifier
        self.tune = tune

    def forward(self, pixels: Tensor) -> Tensor:
        self.classifier.head.train()
        self.classifier.backbone.train(self.tune)
        if not len(pixels):  # a share of the last batch may be none, which a ViT does not take
            none: Tensor = self.classifier.head(pixels.new_zeros(0, self.classifier.head.width))
            return none
        logits: Tensor = self.classifier(pixels)
        return logits


def _score(module: nn.Module, logits: Callable[[], Tensor], labels: Tensor) -> Figures:
    module.eval()
    with torch.no_grad():
        result = figures(logits(), labels)
    module.train()
    return result
