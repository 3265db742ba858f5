"""What a process of train computes: the classifier's weights and the VAL_CALIB logits of exactly these."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from natix_lib import config
from natix_lib.backbones.loading import load_backbone
from natix_lib.bundle.transform import Transform
from natix_lib.config.step_settings import TrainSettings
from natix_lib.contracts import TRAIN, VAL_CALIB, VAL_SELECT, read_manifest
from natix_lib.data.dataset import open_role
from natix_lib.distributed.world import World
from natix_lib.files import JsonDict, read_json
from natix_lib.progress import Lines
from natix_lib.training.features import silent
from natix_lib.training.fit import Epoch
from natix_lib.training.run import train_classifier

CLASSIFIER, LOGITS = "classifier.", "val_calib_logits"


def compute(settings: Mapping[str, Any], inputs: Mapping[str, str]) -> tuple[dict[str, Tensor], JsonDict]:
    """Train a classifier; every process calls this, the first one's answer counts.

    Args:
        settings: `TrainSettings`.
        inputs: Paths of `dataset`, `splits` and `backbone`.

    Returns:
        The classifier's state under `classifier.` and float32 `val_calib_logits` (n, C); the `history` of epochs and
        the `transform` that images went through.

    Raises:
        NatixError: If an input breaks its contract, or a loss is not finite.
    """
    wanted = config.parse(TrainSettings, settings)
    world = World.from_environment()
    facts = read_manifest(inputs["backbone"], "backbone")
    train, val_select, val_calib = (
        open_role("train", role, inputs["dataset"], inputs["splits"]) for role in (TRAIN, VAL_SELECT, VAL_CALIB)
    )
    transform = Transform(
        image_size=wanted.model.image_size,
        resize_shorter_side=read_json(Path(inputs["dataset"]) / "dataset.json")["resize_shorter_side"],
        multiview=wanted.model.use_multiview,
        image_mean=tuple(facts["image_mean"]),
        image_std=tuple(facts["image_std"]),
    )
    lines = Lines()

    def say(row: Epoch) -> None:
        if world.first:
            lines.say(f"epoch {row.epoch}: train/loss {row.train_loss:.4f} val_select/acc {row.val_select_acc:.4f}")

    with world.joined():
        trained = train_classifier(
            load_backbone(inputs["backbone"]),
            train,
            val_select,
            val_calib,
            len(train.class_names),
            transform,
            wanted,
            facts["weights_sha256"],
            train.dataset_fingerprint,
            lines.progress if world.first else silent,
            say,
            world,
        )
    tensors = {f"{CLASSIFIER}{name}": value for name, value in trained.classifier.state_dict().items()}
    tensors[LOGITS] = torch.from_numpy(trained.val_calib_logits)
    return tensors, {"history": [asdict(row) for row in trained.history], "transform": transform.document()}
