"""From opened splits and a backbone to a trained classifier and its VAL_CALIB logits.

Frozen backbone: features of all views once, then head training on them. Tuned backbone (or `feature_cache: false`):
the same loop on pixels. Either way the head's standardisation comes from the clean TRAIN features of the backbone
as it was loaded, the kept weights are those that scored best on VAL_SELECT, and the VAL_CALIB logits come from a
float32 pass through exactly those weights.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from natix_lib.bundle.transform import Transform
from natix_lib.config.step_settings import TrainSettings
from natix_lib.distributed.world import ALONE, World
from natix_lib.errors import TrainingError
from natix_lib.training.classifier import Classifier
from natix_lib.training.features import FeatureCache, Progress, cache_key, extract, silent
from natix_lib.training.fit import Epoch, class_weights, fit, mean_loss_and_accuracy
from natix_lib.training.views import Images, Views, chosen_batches


class LabelledImages(Images, Protocol):
    """A split role with labels."""

    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Trained:
    """A trained classifier, its curve, and float32 VAL_CALIB logits (n, C) from exactly its weights."""

    classifier: Classifier
    history: list[Epoch]
    val_calib_logits: NDArray[np.float32]


def train_classifier(
    backbone: nn.Module,
    train: LabelledImages,
    val_select: LabelledImages,
    val_calib: LabelledImages,
    classes: int,
    transform: Transform,
    settings: TrainSettings,
    backbone_sha256: str,
    dataset_fingerprint: str,
    progress: Progress = silent,
    on_epoch: Callable[[Epoch], None] = lambda row: None,
    world: World = ALONE,
) -> Trained:
    """Train on TRAIN, stop and choose on VAL_SELECT, give logits on VAL_CALIB.

    Several processes divide the passes through the backbone and, when it is tuned, each batch; every one returns the
    same.

    Raises:
        TrainingError: If a loss or logit is not finite.
    """
    model, training = settings.model, settings.training
    device = world.device
    autocast = None
    if device.type == "cuda" and training.mixed_precision.enabled:
        autocast = getattr(torch, training.mixed_precision.dtype)
    seed_everything(training.seed)
    classifier = Classifier(backbone, classes, model.head_type, model.dropout_rate).to(device).eval()
    classifier.backbone.requires_grad_(False)
    cache = FeatureCache(training.feature_cache_dir)
    ema_decay = model.ema_decay if model.use_ema else None

    def features(images: Images, numbers: tuple[int, ...], what: str) -> Tensor:
        views = Views(images, transform, training.seed, numbers)
        rows = world.share(len(images))
        ids = images.ids[rows.start : rows.stop]
        part = cache.get_or_compute(
            cache_key(backbone_sha256, dataset_fingerprint, views, ids, str(autocast)),
            lambda: extract(classifier, views, settings.dataloader, autocast, progress, what, rows),
        )
        return world.gathered(part, len(images))

    train_labels = torch.from_numpy(np.array(train.labels)).to(device)
    select_labels = torch.from_numpy(np.array(val_select.labels)).to(device)
    weights = class_weights(train_labels, classes, training.class_weights)
    clean = features(train, (), "features of TRAIN")
    classifier.head.standardise(clean.mean(dim=1).to(device))

    if model.freeze_backbone and training.feature_cache:
        bank = clean[:, clean.shape[1] // 2][:, None]  # the centre view, as the augmented ones see one square each
        if training.views > 1:
            numbers = tuple(range(1, training.views))
            bank = torch.cat([bank, features(train, numbers, "augmented features of TRAIN")], dim=1)
        bank = bank.to(device)
        select = features(val_select, (), "features of VAL_SELECT").to(device)
        history = fit(
            classifier.head.train(),
            lambda epoch: _feature_batches(bank, train_labels, settings, epoch),
            lambda: _score(classifier.head, lambda: classifier.head(select).mean(dim=1), select_labels),
            _steps(len(train), settings),
            training,
            weights,
            ema_decay,
            on_epoch,
        )
    else:
        classifier.backbone.requires_grad_(not model.freeze_backbone)
        if world.size > 1:
            torch.manual_seed(training.seed + world.rank)  # another dropout for each share
        history = fit(
            _TrainMode(classifier, tune=not model.freeze_backbone),
            lambda epoch: _pixel_batches(train, train_labels, transform, settings, epoch, progress, world),
            lambda: _score(
                classifier,
                lambda: _pixel_logits(classifier, val_select, transform, settings, world, autocast),
                select_labels,
            ),
            _steps(len(train), settings),
            training,
            weights,
            ema_decay,
            on_epoch,
            autocast,
            world,
        )
    classifier.eval()
    world.copy_first(classifier)  # a head on cached features was trained by each process for itself
    logits = _pixel_logits(classifier, val_calib, transform, settings, world, None, progress, "logits of VAL_CALIB")
    if not torch.isfinite(logits).all():
        raise TrainingError("the trained classifier gives a VAL_CALIB logit that is not finite")
    return Trained(classifier.cpu().requires_grad_(False), history, logits.float().cpu().numpy())


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
            none: Tensor = self.classifier.head(pixels.new_zeros(0, self.classifier.head.linear.in_features))
            return none
        logits: Tensor = self.classifier(pixels)
        return logits


def _score(module: nn.Module, logits: Callable[[], Tensor], labels: Tensor) -> tuple[float, float]:
    module.eval()
    with torch.no_grad():
        result = mean_loss_and_accuracy(logits(), labels)
    module.train()
    return result


def _steps(images: int, settings: TrainSettings) -> int:
    return -(-images // settings.dataloader.batch_size)


def _epoch_order(images: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(images, generator=generator)


def _feature_batches(
    bank: Tensor, labels: Tensor, settings: TrainSettings, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One random view of each image, shuffled: features (n, F) and labels."""
    order = _epoch_order(len(bank), settings.training.seed, epoch).to(bank.device)
    generator = torch.Generator().manual_seed(settings.training.seed * 1_000_003 + epoch + 500_009)
    view = torch.randint(bank.shape[1], (len(bank),), generator=generator).to(bank.device)
    for rows, chosen in zip(
        torch.split(order, settings.dataloader.batch_size),
        torch.split(view, settings.dataloader.batch_size),
        strict=True,
    ):
        yield bank[rows, chosen], labels[rows]


def _pixel_batches(
    images: Images,
    labels: Tensor,
    transform: Transform,
    settings: TrainSettings,
    epoch: int,
    progress: Progress,
    world: World,
) -> Iterator[tuple[Tensor, Tensor]]:
    """A fresh augmented view of each image, shuffled: this process's share of pixels (n, 3, S, S) and labels."""
    order = _epoch_order(len(images), settings.training.seed, epoch)
    views = Views(images, transform, settings.training.seed, (epoch + 1,))
    whole = torch.split(order, settings.dataloader.batch_size)
    chosen = [rows[list(world.share(len(rows)))] for rows in whole]
    done = 0
    pixels_of = chosen_batches(views, settings.dataloader, [rows.tolist() for rows in chosen])
    for rows, mine, pixels in zip(whole, chosen, pixels_of, strict=True):
        done += len(rows)
        progress(f"epoch {epoch}", done, len(images))
        yield pixels[:, 0].to(labels.device), labels[mine.to(labels.device)]


@torch.no_grad()
def _pixel_logits(
    classifier: Classifier,
    images: Images,
    transform: Transform,
    settings: TrainSettings,
    world: World,
    autocast: torch.dtype | None,
    progress: Progress = silent,
    what: str = "logits",
) -> Tensor:
    """Logits of the evaluation views, averaged over views, (n, C), on the classifier's device."""
    views = Views(images, transform, settings.training.seed)
    rows = world.share(len(images))
    features = extract(classifier, views, settings.dataloader, autocast, progress, what, rows)
    logits: Tensor = classifier.head(features.to(next(classifier.parameters()).device)).mean(dim=1)
    return world.gathered(logits, len(images))
