"""train, phase 1: TRAIN and VAL_SELECT -> classifier and metrics.csv; VAL_CALIB -> logits of exactly its weights."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natix_lib import config, logits
from natix_lib.config.step_settings import TrainSettings
from natix_lib.contracts import SETS, TRAIN, VAL_CALIB, VAL_SELECT, read_manifest
from natix_lib.data.sets import RoleSet, open_set, require_one_division
from natix_lib.distributed.launch import launch
from natix_lib.errors import ConfigError
from natix_lib.files import canonical_json, read_json, sha256_bytes, write_csv
from natix_lib.steps import train_worker
from natix_lib.steps.train_worker import CLASSIFIER, LOGITS
from natix_lib.training.artifact import write_classifier
from natix_lib.training.classifier import Classifier
from natix_lib.training.fit import Epoch, best_epoch, metrics_rows


def run(
    settings: Mapping[str, Any],
    *,
    train_set: str,
    val_select_set: str,
    val_calib_set: str,
    backbone: str,
    classifier: str,
    training_curve: str,
    val_calib_logits: str,
    val_calib_labels: str,
) -> dict[str, float]:
    """Train a classifier.

    Args:
        settings: `TrainSettings`.
        train_set: Set of TRAIN.
        val_select_set: Set of VAL_SELECT.
        val_calib_set: Set of VAL_CALIB.
        backbone: Backbone folder.
        classifier: Folder to write.
        training_curve: metrics.csv to write.
        val_calib_logits: Logits to write.
        val_calib_labels: Labels and groups to write.

    Returns:
        Best epoch, its val_select accuracy and loss, and the images of each role.

    Raises:
        NatixError: If an input breaks its contract, or a loss is not finite.
    """
    wanted = config.parse(TrainSettings, settings)
    facts = read_manifest(backbone, "backbone")
    if wanted.model.init_from_explora != ("adaptation" in facts):
        raise ConfigError(
            "model.init_from_explora is true but the backbone has not been through adapt"
            if wanted.model.init_from_explora
            else "model.init_from_explora is false but the backbone is one that adapt has made"
        )
    if wanted.model.image_size % facts["patch_size"]:
        raise ConfigError(
            f"model.image_size must be a multiple of the backbone's patch {facts['patch_size']}, "
            f"got {wanted.model.image_size}"
        )
    folders = {"train_set": train_set, "val_select_set": val_select_set, "val_calib_set": val_calib_set}
    sets = {SETS[role]: open_set(folders[SETS[role]], role) for role in (TRAIN, VAL_SELECT, VAL_CALIB)}
    require_one_division(sets)
    train = sets["train_set"]
    inputs = {**folders, "backbone": backbone}
    tensors, found = launch("train", train_worker.compute, settings, inputs, wanted.num_gpus, wanted.nodes)
    head = {"type": wanted.model.head_type, "dropout": wanted.model.dropout_rate}
    model = Classifier.from_description(read_json(Path(backbone) / "config.json"), head, len(train.class_names))
    model.load_state_dict({name.removeprefix(CLASSIFIER): value for name, value in tensors.items() if name != LOGITS})
    history = [Epoch(**row) for row in found["history"]]
    best = best_epoch(history)
    provenance = {
        "dataset_fingerprint": train.dataset_fingerprint,
        "splits_sha256": train.splits_sha256,
        "backbone_sha256": facts["weights_sha256"],
    }
    for path in Path(backbone).iterdir():
        if path.name in facts["licence"]["files"]:
            Path(classifier).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, Path(classifier) / path.name)
    manifest = write_classifier(
        classifier,
        model,
        {
            "class_names": train.class_names,
            "positive_classes": train.positive_classes,
            "transform": found["transform"],
            "licence": facts["licence"],
            "backbone_source": facts["source"],
            "trained": {
                "epochs": len(history),
                "best_epoch": best.epoch,
                "val_select_acc": best.val_select_acc,
                "val_select_loss": best.val_select_loss,
                "freeze_backbone": wanted.model.freeze_backbone,
                "ema": wanted.model.use_ema,
            },
            "provenance": provenance,
        },
    )
    write_csv(training_curve, metrics_rows(history))
    _write_calibration_set(val_calib_logits, val_calib_labels, tensors[LOGITS].numpy(), sets["val_calib_set"], manifest)
    return {
        "best_epoch": best.epoch,
        "val_select_acc": best.val_select_acc,
        "val_select_loss": best.val_select_loss,
        **{f"images_{images.role.lower()}": len(images) for images in sets.values()},
    }


def _write_calibration_set(
    logits_path: str, labels_path: str, values: NDArray[np.float32], images: RoleSet, manifest: dict[str, Any]
) -> None:
    header = {
        "role": VAL_CALIB,
        "class_names": canonical_json(images.class_names).decode(),
        "positive_classes": canonical_json(images.positive_classes).decode(),
        "model_sha256": manifest["model_sha256"],
        "splits_sha256": images.splits_sha256,
        "dataset_fingerprint": images.dataset_fingerprint,
        "ids_sha256": sha256_bytes("\n".join(images.ids).encode()),
    }
    logits.write_logits(logits_path, values, header)
    _, groups = np.unique(images.groups, return_inverse=True)
    logits.write_labels(labels_path, images.labels, groups.astype(np.int64), header)
