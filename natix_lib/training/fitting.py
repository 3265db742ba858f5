"""The two ways to train a classifier, on features of a frozen backbone and on pixels, and the passes of a run.

Features of all views are computed once and every epoch of head training reads them; a tuned backbone, or
`feature_cache: false`, sees the pixels of each image anew. The loop is one, `fit`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from natix_lib.config import Grid, Training
from natix_lib.contracts import VAL_SELECT
from natix_lib.distributed.world import World
from natix_lib.training.bank import FeatureBank, allocated, room_on, taken
from natix_lib.training.checks import explained, finite_features
from natix_lib.training.classifier import Classifier
from natix_lib.training.features import Progress, batch_features, cache_key, silent
from natix_lib.training.fit import Epoch, Objective, fit
from natix_lib.training.grid import Bank, fit_grid, points
from natix_lib.training.kept import drawing_once, feature_cache, keeper_of, labelled_sha256
from natix_lib.training.mixing import Mixup
from natix_lib.training.passes import Passes
from natix_lib.training.precision import FLOAT32, autocast_of, full_float32, precision_name
from natix_lib.training.profiles import NONE, PROFILES
from natix_lib.training.recipe import LabelledImages, Recipe, Sets
from natix_lib.training.tuning import begin_tuning, end_tuning
from natix_lib.training.views import Images, Views
from natix_lib.training.watch import Figures, figures

WHILE_COMPUTED = 4  # features on their way take this part of what a bank may


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
    grid: list[dict[str, Any]] | None = None


class Run:
    """What the parts of a run share; each part changes the weights of its classifier."""

    training: Training

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
        self.training = recipe.training
        self.cached = model.freeze_backbone and training.feature_cache
        self.ema_decay = model.ema_decay if model.use_ema else None
        precision = training.mixed_precision
        self.autocast = autocast_of(world.device, precision.dtype if precision.enabled else None)
        self.precision = precision_name(training.determinism, world.device, self.autocast)
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

    def features(self, images: Images, numbers: tuple[int, ...], what: str, into: Tensor | None = None) -> Tensor:
        """Features (n, views, F) of the evaluation views, or of the numbered augmented ones, kept or computed.

        They are put `into` a tensor of that shape, or into a new one of the CPU.
        """
        views = Views(images, self.recipe.transform, self.training.seed, numbers, self.profile)
        settings, autocast, world = self.recipe.dataloader, self.autocast, self.world
        rows = world.share(len(images))
        ids = images.ids[rows.start : rows.stop]

        def passed(chosen: Sequence[int]) -> Iterator[Tensor]:
            done = 0
            shared = [rows[number] for number in chosen]
            for part in batch_features(self.classifier, views, settings, autocast, shared):
                of_part = [images.ids[row] for row in shared[done : done + len(part)]]
                done += len(part)
                yield finite_features(part, of_part, what, autocast)

        fingerprint, pooling = self.sets.fingerprint, self.classifier.pooling
        names = pooling.names if pooling is not None else ()
        if into is None:
            shape = (len(images), views.count, self.classifier.width)
            into = allocated(shape, torch.float32, self._room_while_computed)
        first = rows.start
        with drawing_once():
            for part in self.cache.get_or_extract(
                len(rows),
                lambda part: cache_key(self.backbone_sha256, names, fingerprint, views, ids[part], self.precision),
                passed,
                lambda done: self.reports.progress(what, done, len(rows)),
            ):
                into[first : first + len(part)] = part
                first += len(part)
        world.complete(into)
        return into

    def rows_of(self, features: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Some rows of what `features` gives."""
        return taken(features, rows, self._room_while_computed)

    @property
    def _room_while_computed(self) -> int:
        return room_on(torch.device("cpu"), self.world.local_size) // WHILE_COMPUTED

    def on_features(self, train: LabelledImages, clean: Tensor, weights: Tensor | None) -> Fitted:
        """Train the head on features of all views, `clean` (n, views, F) those of the evaluation views."""
        training, head, device = self.training, self.classifier.head, self.world.device
        plain, more = clean.shape[1], tuple(range(1, training.views)) if self.profile is not NONE else ()
        shape = (len(train), plain + len(more), self.classifier.width)
        with explained("training.views", training.views, self.recipe.dataloader.workers):
            room = self.world.lowest(room_on(device, self.world.local_size))  # all processes decide alike
            bank = FeatureBank(shape, device, room, self.autocast)
            bank.values[:, :plain] = clean
        if more:
            self.features(train, more, "augmented features of TRAIN", bank.values[:, plain:])
        select = self.features(self.sets.val_select, (), "features of VAL_SELECT").to(device)
        labels, known = self.numbers(train), self.numbers(self.sets.val_select)
        drawn = partial(self.passes.feature_batches, bank, labels)
        steps, in_loss = self.passes.steps_an_epoch(len(train)), self._in_loss(weights)
        if training.grid != Grid():
            return self._best_of_grid(Bank(drawn, steps, select, known, self.sets.val_select.groups, in_loss))
        score = partial(_score, head, lambda: head(select).mean(dim=1), known)
        objective = Objective(drawn, steps, in_loss, score, keeper=self.keeper)
        return Fitted(fit(head.train(), objective, training, self.ema_decay, self.reports.on_epoch), select)

    def _best_of_grid(self, bank: Bank) -> Fitted:
        """Train the heads of the grid, and leave the chosen one, with its pooling, in the classifier."""
        training, classifier = self.training, self.classifier
        tried = points(training, self.recipe.model)
        poolings = list(dict.fromkeys(point.pooling for point in tried))
        heads = {poolings[0]: classifier.head}
        if several := len(poolings) > 1:
            heads = {names: classifier.narrowed(names, training.seed) for names in poolings}
            columns = {names: classifier.columns(names).to(bank.select.device) for names in poolings}
            bank = replace(bank, columns=columns)
        grid = fit_grid(heads, tried, bank, training, self.ema_decay, self.reports.on_epoch)
        select = bank.select
        if several:
            kept = tried[int(self.world.of_first([grid.row])[0])].pooling  # else the shapes of processes could differ
            classifier.narrow(kept, heads[kept])
            select = select[..., bank.columns[kept]]
        own = () if classifier.pooling is not None else ("pooling",)  # what `patches` does not take
        table = [{key: row[key] for key in row if key not in own} for row in grid.table]
        return Fitted(grid.history, select, table)

    def on_pixels(self, train: LabelledImages, weights: Tensor | None) -> Fitted:
        """Train the head, and the backbone where it is tuned, on a fresh augmented view of each image an epoch."""
        model, training, world, classifier = self.recipe.model, self.training, self.world, self.classifier
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
        if features is None or self.precision != FLOAT32:
            return self.logits(self.sets.val_select, VAL_SELECT)
        with torch.no_grad():
            logits: Tensor = self.classifier.head(features).mean(dim=1)
        return logits

    def logits(self, images: Images, role: str) -> Tensor:
        """Logits (n, C) of a role in float32, averaged over the evaluation views."""
        with full_float32():
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
