"""From a backbone and unlabelled images to a merged teacher: the run of ExPLoRA, by Lightning.

Works in one process and in each of several that torchrun has started; then every process holds the result.
"""

import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from natix_lib.backbones.loading import prefix_tokens, require_whole_patches
from natix_lib.backbones.lora import merged_state
from natix_lib.config import Explora
from natix_lib.distributed.world import ALONE, World
from natix_lib.errors import ConfigError, StorageError, TrainingError
from natix_lib.explora.adapters import add_adapters, train_all
from natix_lib.explora.checkpoint import content, restore
from natix_lib.explora.learner import Learner, Sizes
from natix_lib.explora.stop import Stop
from natix_lib.explora.stream import Stream, stream_loader
from natix_lib.progress import NOTE
from natix_lib.storage.checkpoints import Checkpoints
from natix_lib.training.views import Images

LOCAL_SHARE = 3 / 7  # of the side of a global crop: 96 of 224 pixels, 98 with a patch of 14
PROTOTYPES_AN_IMAGE = 2048  # most that Sinkhorn is given to balance: 65,536 at 32 images


@dataclass(frozen=True)
class Feed:
    """The images of a run, and how the network gets them.

    Attributes:
        images: The images of the domain; labels are not read.
        image_size: Side of the global crops in pixels.
        mean: Mean of each channel that the backbone takes off, RGB in [0, 1].
        std: Standard deviation of each channel that it divides by.
        num_workers: Decoding processes of each training process.
    """

    images: Images
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    num_workers: int = 0


@dataclass(frozen=True)
class Adapted:
    """What a run gives.

    Attributes:
        state: State of the merged teacher, with the keys and shapes of the backbone before.
        trained: Names of the parameters that were trained, LoRA's among them.
        counts: How many parameters were trained, and of how many, without the projection head.
        history: One dict for each optimiser step.
    """

    state: dict[str, Tensor]
    trained: list[str]
    counts: tuple[int, int]
    history: list[dict[str, float]]


def crop_sizes(config: Any, image_size: int) -> Sizes:
    """Sides of the crops for a backbone's config.

    Raises:
        ConfigError: If the image size is no multiple of the patch.
    """
    patch = int(config.patch_size)
    require_whole_patches(image_size, patch)
    local = max(2, round(image_size * LOCAL_SHARE / patch)) * patch
    return Sizes(image_size, min(local, image_size), patch, prefix_tokens(config))


def require_batch(settings: Explora, processes: int) -> None:
    """Refuse a batch that the prototypes or the processes do not allow.

    Raises:
        ConfigError: Naming the rule and the value.
    """
    at_once = settings.device_batch_size * processes
    if settings.batch_size % at_once:
        raise ConfigError(
            f"explora.batch_size must be a multiple of explora.device_batch_size x {processes} processes, "
            f"got {settings.batch_size} and {settings.device_batch_size}"
        )
    if at_once < 2 or settings.prototypes > PROTOTYPES_AN_IMAGE * at_once:
        least = max(2, -(-settings.prototypes // PROTOTYPES_AN_IMAGE))
        raise ConfigError(
            f"explora.prototypes {settings.prototypes} need at least {least} images at once, "
            f"explora.device_batch_size x {processes} processes is {at_once}"
        )


def adapt_backbone(
    backbone: nn.Module,
    feed: Feed,
    settings: Explora,
    world: World = ALONE,
    identity: dict[str, Any] | None = None,
    on_step: Callable[[Learner], None] = lambda learner: None,
) -> Adapted:
    """Adapt a backbone to images.

    Args:
        backbone: A backbone, float32; changed in place. It goes on from the weights that it has, random ones included.
        feed: The images and how the network gets them.
        settings: Steps, batches, losses and schedules of the run.
        world: This process's place among those that train.
        identity: What the run depends on beside its settings, for its checkpoints; None keeps none.
        on_step: Called after each optimiser step, on every process.

    Returns:
        The merged teacher and its curve, on every process.

    Raises:
        ConfigError: If a setting does not fit the backbone or the processes.
        TrainingError: If the loss or a gradient is not finite; it names the step and the checkpoint that is kept.
    """
    config: Any = backbone.config
    sizes = crop_sizes(config, feed.image_size)
    require_batch(settings, world.size)
    torch.manual_seed(settings.seed)
    total = sum(p.numel() for p in backbone.parameters())
    trained = (
        train_all(backbone)
        if settings.from_scratch
        else add_adapters(backbone, settings.rank, settings.alpha, settings.unfrozen_blocks)
    )
    count = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    if settings.gradient_checkpointing:
        backbone.activation_checkpointing_enable()  # type: ignore[operator]
    checkpoints = _checkpoints(settings, identity)
    learner = Learner(backbone, settings, sizes, feed.mean, feed.std, world, on_step)
    if checkpoints:
        place = checkpoints.newest()
        if place:
            restore(place, learner)
        if world.first:
            at = f"{NOTE}going on from step {learner.step_number} of {settings.steps}, {place}"
            print(at if place else f"no checkpoint yet in {checkpoints.folder}", flush=True)
    at_once = settings.device_batch_size * world.size
    accumulated = settings.batch_size // at_once
    if learner.step_number < settings.steps:
        with quiet_lightning():
            trainer = _trainer(settings, accumulated, world, checkpoints)
            stream = Stream(
                len(feed.images),
                settings.device_batch_size,
                settings.seed,
                learner.step_number * accumulated,
                settings.steps * accumulated,
                world,
            )
            try:
                trainer.fit(learner, stream_loader(feed.images, stream, feed.num_workers))
            except (
                SystemExit
            ) as stop:  # Lightning's own ends are 0 at SIGTERM, which would pass for done, and 1 at Ctrl-C
                by_hand = isinstance(stop.__context__, KeyboardInterrupt)
                raise SystemExit(128 + (signal.SIGINT if by_hand else signal.SIGTERM)) from stop
            except TrainingError as error:
                raise TrainingError(f"{error}; the last checkpoint is {_kept(checkpoints)}") from error
    return Adapted(merged_state(learner.teacher.backbone), trained, (count, total), learner.history)


def _checkpoints(settings: Explora, identity: dict[str, Any] | None) -> Checkpoints | None:
    if not settings.checkpoint_root or identity is None:
        return None
    lasting = settings.model_dump(mode="json", exclude={"checkpoint_root", "checkpoint_every", "promote"})
    return Checkpoints(settings.checkpoint_root, {**identity, "explora": lasting})


def _kept(checkpoints: Checkpoints | None) -> str:
    try:
        return (checkpoints and checkpoints.newest()) or "none"
    except StorageError:
        return f"in {checkpoints and checkpoints.folder}, which cannot be read now"


class _Save(lightning.Callback):
    """Saves a checkpoint every so many steps, at the end, and when the process is told to stop."""

    def __init__(self, checkpoints: Checkpoints, every: int, world: World) -> None:
        self.checkpoints, self.every, self.world = checkpoints, every, world
        self._saved = -1

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        last = module.step_number == module.settings.steps
        if not last:
            self.checkpoints.check()
        if self._is_due(module) and (last or module.step_number % self.every == 0):
            self.checkpoints.save(module.step_number, content(module, trainer.optimizers[0]))
            self._saved = module.step_number

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self.checkpoints.settle()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        if not isinstance(exception, SIGTERMException | KeyboardInterrupt):
            self.checkpoints.settle()
        elif self.world.first and module.step_number:
            self.checkpoints.save_now(module.step_number, content(module, trainer.optimizers[0]))

    def _is_due(self, module: Any) -> bool:
        """Whether this process writes, and has not written this step: many micro-batches may have one number."""
        return self.world.first and module.step_number not in (0, self._saved)


def _trainer(settings: Explora, accumulated: int, world: World, checkpoints: Checkpoints | None) -> lightning.Trainer:
    gpu = torch.cuda.is_available()
    return lightning.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=world.local_size,
        num_nodes=world.nodes,
        strategy="ddp" if world.size > 1 else "auto",
        precision="bf16-mixed" if gpu and settings.precision == "bfloat16" else "32-true",
        max_epochs=1,
        accumulate_grad_batches=accumulated,
        gradient_clip_val=settings.clip,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        use_distributed_sampler=False,
        callbacks=[
            *([_Save(checkpoints, settings.checkpoint_every, world)] if checkpoints else []),
            *([Stop(world)] if world.size > 1 else []),
        ],
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning's advice is for whoever writes a loop; its errors still come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
