"""What a process of train computes: the classifier's weights and the VAL_CALIB logits of exactly these."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from natix_lib import config
from natix_lib.backbones.loading import load_backbone
from natix_lib.config.step_settings import TrainSettings
from natix_lib.contracts import SETS, TRAIN, VAL_CALIB, VAL_SELECT, read_manifest
from natix_lib.data.sets import open_set
from natix_lib.distributed.processes import be_a_process
from natix_lib.distributed.world import World
from natix_lib.files import JsonDict
from natix_lib.progress import Lines
from natix_lib.training.fit import Epoch
from natix_lib.training.run import SILENT, Recipe, Reports, Sets, train_classifier
from natix_lib.transform import Transform

CLASSIFIER, LOGITS = "classifier.", "val_calib_logits"


def compute(settings: Mapping[str, Any], inputs: Mapping[str, str]) -> tuple[dict[str, Tensor], JsonDict]:
    """Train a classifier; every process calls this, the first one's answer counts.

    Args:
        settings: `TrainSettings`.
        inputs: Paths of `train_set`, `val_select_set`, `val_calib_set` and `backbone`, whose hashes have been checked.

    Returns:
        The classifier's state under `classifier.` and float32 `val_calib_logits` (n, C); the `history` of epochs and
        the `transform` that images went through.

    Raises:
        NatixError: If an input breaks its contract, or a loss is not finite.
    """
    train_settings = config.parse(TrainSettings, settings)
    train, val_select, val_calib = (
        open_set(inputs[SETS[role]], role, hash_files=False) for role in (TRAIN, VAL_SELECT, VAL_CALIB)
    )
    backbone = read_manifest(inputs["backbone"], "backbone", hash_files=False)
    sets = Sets(train, val_select, val_calib, len(train.class_names), train.dataset_fingerprint)
    transform = Transform(
        image_size=train_settings.model.image_size,
        resize_shorter_side=train.resize_shorter_side,
        multiview=train_settings.model.use_multiview,
        image_mean=tuple(backbone["image_mean"]),
        image_std=tuple(backbone["image_std"]),
    )
    world, lines = World.from_environment(), Lines()

    def say(row: Epoch) -> None:
        lines.say(f"epoch {row.epoch}: train/loss {row.train_loss:.4f} val_select/acc {row.val_select_acc:.4f}")

    with world.joined():
        trained = train_classifier(
            load_backbone(inputs["backbone"]),
            backbone["weights_sha256"],
            sets,
            Recipe(train_settings.model, train_settings.training, train_settings.dataloader, transform),
            Reports(lines.progress, say) if world.first else SILENT,
            world,
        )
    tensors = {f"{CLASSIFIER}{name}": value for name, value in trained.classifier.state_dict().items()}
    tensors[LOGITS] = torch.from_numpy(trained.val_calib_logits)
    return tensors, {"history": [asdict(row) for row in trained.history], "transform": transform.document()}


if __name__ == "__main__":
    be_a_process(compute)
