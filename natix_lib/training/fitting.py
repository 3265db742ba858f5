"""The two ways to train a classifier, on features of a frozen backbone and on pixels, and the passes of a run.

Features of all views are computed once and every epoch of head training reads them; a tuned backbone, or
`feature_cache: false`, sees the pixels of each image anew. The loop is one, `fit`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from natix_lib.contracts import VAL_SELECT
from natix_lib.distributed.world import World
from natix_lib.training.checks import explained, finite_features
from natix_lib.training.classifier import Classifier
from natix_lib.training.features import Progress, batch_features, cache_key, silent
from natix_lib.training.fit import Epoch, Objective, fit
from natix_lib.training.grid import Bank, fit_grid, points
from natix_lib.training.kept import drawing_once, feature_cache, keeper_of, labelled_sha256
from natix_lib.training.mixing import Mixup
from natix_lib.training.passes import Passes
from natix_lib.training.profiles import NONE, PROFILES
from natix_lib.training.recipe import LabelledImages, Recipe, Sets
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
class Fitted:
    """An epoch's figures each, features of VAL_SELECT (n, views, F) if they are known, and the table of heads."""

    history: list[Epoch]
    select: Tensor | None = None
    grid: list[dict[str, float]] | None = None


class Run:
    """What the parts of a run share; each part changes the weights of its classifier."""

    def __init__(
        self,
        classifier: Classifier,
        backbone_sha256: str,
        sets: Sets,
        recipe: Recipe,
        reports: Reports,
        world: World,
    ) -> None:
        """Take the classifier, on its device, and its backbone's hash; the rest as `train_classifier` does."""
        self.classifier, self.sets, self.recipe, self.reports, self.world = classifier, sets, recipe, reports, world
        self.backbone_sha256 = backbone_sha256
        model, training = recipe.model, recipe.training
        self.cached = model.freeze_backbone and training.feature_cache
        self.ema_decay = model.ema_decay if model.use_ema else None
        self.autocast: torch.dtype | None = None
        if world.device.type == "cuda" and training.mixed_precision.enabled:
            self.autocast = getattr(torch, training.mixed_precision.dtype)
        self.cache = feature_cache(training, recipe.dataloader.batch_size)
        self.keeper = keeper_of(training, _identity(backbone_sha256, sets, recipe), world)
        mixup = Mixup(training.mixup, sets.classes, training.seed) if training.mixup else None
        self.sampled = training.class_weights == "sampled"
        self.profile = PROFILES[training.augmentation]
        self.passes = Passes(
            recipe.transform, training.seed, recipe.dataloader, world, self.sampled, mixup, self.profile
        )

    def numbers(self, images: LabelledImages) -> Tensor:
        """The class numbers of images, on the device."""
        return torch.from_numpy(np.array(images.labels)).to(self.world.device)

    def features(self, images: Images, numbers: tuple[int, ...], what: str) -> Tensor:
        """Features (n, views, F) of the evaluation views, or of the numbered augmented ones, kept or computed."""
        views = Views(images, self.recipe.transform, self.recipe.training.seed, numbers, self.profile)
        settings, autocast, world = self.recipe.dataloader, self.autocast, self.world
        rows = world.share(len(images))
        ids = images.ids[rows.start : rows.stop]

        def passed(chosen: Sequence[int]) -> Iterator[Tensor]:
            done = 0
            shared = [rows[number] for number in chosen]
            for part in batch_features(self.classifier.backbone, views, settings, autocast, shared):
                of_part = [images.ids[row] for row in shared[done : done + len(part)]]
                done += len(part)
                yield finite_features(part, of_part, what, autocast)

        fingerprint = self.sets.fingerprint
        with drawing_once():
            part = self.cache.get_or_extract(
                len(rows),
                lambda part: cache_key(self.backbone_sha256, fingerprint, views, ids[part], str(autocast)),
                passed,
                lambda done: self.reports.progress(what, done, len(rows)),
            )
        none = torch.empty(0, views.count, self.classifier.head.width)  # a share of images may be none
        return world.gathered(torch.cat([none, *part]), len(images))

    def on_features(self, train: LabelledImages, clean: Tensor, weights: Tensor | None) -> Fitted:
        """Train the head on features of all views, `clean` (n, views, F) those of the evaluation views."""
        training, head, device = self.recipe.training, self.classifier.head, self.world.device
        bank = clean
        if training.views > 1 and self.profile is not NONE:
            augmented = self.features(train, tuple(range(1, training.views)), "augmented features of TRAIN")
            bank = torch.cat([clean, augmented], dim=1)
        with explained("training.views", training.views, self.recipe.dataloader.workers):
            bank = bank.to(device)
        select = self.features(self.sets.val_select, (), "features of VAL_SELECT").to(device)
        labels, known = self.numbers(train), self.numbers(self.sets.val_select)
        drawn = partial(self.passes.feature_batches, bank, labels)
        steps, in_loss = self.passes.steps_an_epoch(len(train)), self._in_loss(weights)
        if len(tried := points(training, self.recipe.model.dropout_rate)) > 1:
            compared = Bank(drawn, steps, select, known, self.sets.val_select.groups, in_loss)
            grid = fit_grid(head, tried, compared, training, self.ema_decay, self.reports.on_epoch)
            return Fitted(grid.history, select, grid.table)
        score = partial(_score, head, lambda: head(select).mean(dim=1), known)
        objective = Objective(drawn, steps, in_loss, score, keeper=self.keeper)
        return Fitted(fit(head.train(), objective, training, self.ema_decay, self.reports.on_epoch), select)

    def on_pixels(self, train: LabelledImages, weights: Tensor | None) -> Fitted:
        """Train the head, and the backbone where it is tuned, on a fresh augmented view of each image an epoch."""
        model, training, world, classifier = self.recipe.model, self.recipe.training, self.world, self.classifier
        if not model.freeze_backbone:
            begin_tuning(classifier.backbone, training.fine_tune, training.seed)
        if world.size > 1:
            torch.manual_seed(training.seed + world.rank)  # another dropout for each share
        labels, known = self.numbers(train), self.numbers(self.sets.val_select)
        objective = Objective(
            lambda epoch, start: self.passes.pixel_batches(train, labels, epoch, start, self.reports.progress),
            self.passes.steps_an_epoch(len(train)),
            self._in_loss(weights),
            partial(
                _score, classifier, lambda: self.passes.logits(classifier, self.sets.val_select, self.autocast), known
            ),
            training.fine_tune.layer_decay,
            training.fine_tune.device_batch_size,
            self.keeper,
        )
        whole = _TrainMode(classifier, tune=not model.freeze_backbone)
        history = fit(whole, objective, training, self.ema_decay, self.reports.on_epoch, self.autocast, world)
        end_tuning(classifier.backbone)
        return Fitted(history)

    def _in_loss(self, weights: Tensor | None) -> Tensor | None:
        return None if self.sampled else weights

    def select_logits(self, features: Tensor | None) -> Tensor:
        """Logits of VAL_SELECT, from its features where they are what a float32 pass would give."""
        if features is None or self.autocast is not None:
            return self.logits(self.sets.val_select, VAL_SELECT)
        with torch.no_grad():
            logits: Tensor = self.classifier.head(features).mean(dim=1)
        return logits

    def logits(self, images: Images, role: str) -> Tensor:
        """Logits (n, C) of a role in float32, averaged over the evaluation views."""
        return self.passes.logits(self.classifier, images, None, self.reports.progress, f"logits of {role}")


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
