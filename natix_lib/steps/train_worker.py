"""What a process of train computes: the classifier's weights, and VAL_SELECT and VAL_CALIB logits of exactly these."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from natix_lib import config, storage
from natix_lib.backbones.loading import load_backbone
from natix_lib.config import Grid
from natix_lib.config.step_settings import TrainSettings
from natix_lib.contracts import BACKBONE_CONFIG, SETS, TRAIN, VAL_CALIB, VAL_SELECT, read_manifest
from natix_lib.data.sets import RoleSet, open_set
from natix_lib.distributed.exchange import Answer
from natix_lib.distributed.processes import be_a_process
from natix_lib.distributed.world import World
from natix_lib.documents import CLS_AND_MEAN
from natix_lib.files import JsonDict, canonical_json, read_json, sha256_bytes
from natix_lib.logits import logits_name
from natix_lib.progress import Lines
from natix_lib.training.checks import explained
from natix_lib.training.events import EventFile
from natix_lib.training.fit import Epoch
from natix_lib.training.fitting import SILENT, Reports
from natix_lib.training.kept import ELSEWHERE
from natix_lib.training.precision import reserve_cublas
from natix_lib.training.recipe import Recipe, Sets
from natix_lib.training.run import train_classifier
from natix_lib.training.watch import monitored
from natix_lib.transform import Transform

CLASSIFIER = "classifier."  # before the name of each of its weights in an answer


@dataclass(frozen=True)
class Inputs:
    """What train reads, opened.

    Attributes:
        train: Images of TRAIN.
        val_select: Images of VAL_SELECT.
        val_calib: Images of VAL_CALIB.
        backbone: Folder of the backbone.
        description: Its config.json.
        manifest: The backbone's manifest.
    """

    train: RoleSet
    val_select: RoleSet
    val_calib: RoleSet
    backbone: str
    description: JsonDict
    manifest: JsonDict


def compute(settings: TrainSettings, inputs: Inputs) -> Answer:
    """Train a classifier; every process calls this, the first one's answer counts.

    Args:
        settings: What train reads of the config.
        inputs: The opened artifacts that train reads; their hashes have been checked.

    Returns:
        The classifier's state under `classifier.`, float32 `val_select_logits` and `val_calib_logits` (n, C); the
        `history` of epochs, the `transform` that images went through, the `doubts` of TRAIN's labels, and how
        the `prior` was put back, the `grid` of heads and the kept one's `dropout` and `pooling`.

    Raises:
        NatixError: If an input breaks its contract, a loss is not finite, memory runs out or a loader's process ends.
    """
    train, manifest = inputs.train, inputs.manifest
    sets = Sets(train, inputs.val_select, inputs.val_calib, len(train.class_names), train.dataset_fingerprint)
    transform = Transform(
        image_size=settings.model.image_size,
        resize_shorter_side=train.resize_shorter_side,
        multiview=settings.model.use_multiview,
        image_mean=tuple(manifest["image_mean"]),
        image_std=tuple(manifest["image_std"]),
    )
    reserve_cublas()
    world, lines, epochs = World.from_environment(), Lines(), Lines(0)
    stopping, loader, root = settings.training.early_stopping, settings.dataloader, settings.training.tensorboard_root

    def say(row: Epoch) -> None:
        losses = f"train/loss {row.train_loss:.4f} {stopping.monitor} {monitored(row, stopping):.4f}"
        epochs.progress("epochs", row.epoch + 1, settings.training.epochs, losses)
        if curve and settings.training.grid == Grid():  # of a grid the kept head's curve is known at the end
            curve.add(row)

    with ExitStack() as stack:
        stack.enter_context(world.joined())
        for key in ("checkpoint_root", "feature_cache_dir"):
            if world.first and (place := getattr(settings.training, key)):
                storage.require_place(f"training.{key}", place)
        curve = stack.enter_context(_curve(settings, inputs)) if world.first and root else None
        stack.enter_context(explained("data.dataloader.batch_size", loader.batch_size, loader.workers))
        trained = train_classifier(
            load_backbone(inputs.backbone, inputs.description),
            manifest["weights_sha256"],
            sets,
            Recipe(settings.model, settings.training, settings.dataloader, transform),
            Reports(lines.progress, say) if world.first else SILENT,
            world,
        )
        if curve:
            curve.complete(trained.history)
    tensors = {f"{CLASSIFIER}{name}": value for name, value in trained.classifier.state_dict().items()}
    tensors[logits_name(VAL_SELECT)] = torch.from_numpy(trained.val_select_logits)
    tensors[logits_name(VAL_CALIB)] = torch.from_numpy(trained.val_calib_logits)
    figures: dict[str, Any] = {"history": [asdict(row) for row in trained.history], "doubts": asdict(trained.doubts)}
    figures |= {"prior": trained.prior.document() if trained.prior else None, "grid": trained.grid}
    pooling = trained.classifier.pooling
    figures |= {"dropout": trained.classifier.head.dropout.p, "pooling": pooling.names if pooling else CLS_AND_MEAN}
    return tensors, {**figures, "transform": transform.document()}


def _curve(settings: TrainSettings, inputs: Inputs) -> EventFile:
    """The event file of this run: the same command finds it again, other settings or data have another."""
    identity = {
        "training": settings.training.model_dump(mode="json", exclude=ELSEWHERE),
        "model": settings.model.model_dump(mode="json"),
        "batch_size": settings.dataloader.batch_size,
        "dataset_fingerprint": inputs.train.dataset_fingerprint,
        "splits_sha256": inputs.train.splits_sha256,
        "backbone_sha256": inputs.manifest["weights_sha256"],
    }
    run = f"train-{sha256_bytes(canonical_json(identity))[:16]}"
    print(f"curve for TensorBoard: {settings.training.tensorboard_root.rstrip('/')}/{run}", flush=True)
    return EventFile(settings.training.tensorboard_root, run)


def compute_from_paths(settings: Mapping[str, Any], paths: Mapping[str, str]) -> Answer:
    """Compute in a process that was started for it: what the step has parsed and opened is so here once more.

    Args:
        settings: The settings as JSON.
        paths: Paths of `train_set`, `val_select_set`, `val_calib_set` and `backbone`, whose hashes have been checked.
    """
    train, val_select, val_calib = (
        open_set(paths[SETS[role]], role, hash_files=False) for role in (TRAIN, VAL_SELECT, VAL_CALIB)
    )
    backbone = paths["backbone"]
    description = read_json(Path(backbone) / BACKBONE_CONFIG)
    manifest = read_manifest(backbone, "backbone", hash_files=False)
    inputs = Inputs(train, val_select, val_calib, backbone, description, manifest)
    return compute(config.parse(TrainSettings, settings), inputs)


if __name__ == "__main__":
    be_a_process(compute_from_paths)
