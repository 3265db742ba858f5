"""train: TRAIN and VAL_SELECT -> classifier, metrics.csv, label_doubts.html; and its logits, of VAL_CALIB too."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from natix_lib import config, logits
from natix_lib.backbones.loading import require_whole_patches
from natix_lib.config.step_settings import TrainSettings
from natix_lib.contracts import BACKBONE_CONFIG, SETS, TRAIN, VAL_CALIB, VAL_SELECT, read_manifest, require_same
from natix_lib.data.sets import open_set, require_one_division
from natix_lib.decisions.slices import Tags
from natix_lib.distributed.launch import launch
from natix_lib.errors import ConfigError
from natix_lib.files import read_json, write_bytes, write_csv
from natix_lib.progress import NOTE, WARNING, Lines
from natix_lib.reports.doubts import render_doubts
from natix_lib.steps import train_worker
from natix_lib.steps.doubtful import doubtful
from natix_lib.steps.pairs import write_pair
from natix_lib.steps.train_worker import CLASSIFIER
from natix_lib.training.artifact import write_classifier
from natix_lib.training.checks import require_each_class, single_image_warning
from natix_lib.training.classifier import Classifier
from natix_lib.training.doubts import Doubts
from natix_lib.training.fit import Epoch, metrics_rows
from natix_lib.training.watch import best_epoch


def run(
    settings: Mapping[str, Any],
    *,
    train_set: str,
    val_select_set: str,
    val_calib_set: str,
    backbone: str,
    classifier: str,
    training_curve: str,
    val_select_logits: str,
    val_select_labels: str,
    val_calib_logits: str,
    val_calib_labels: str,
    label_doubts: str,
) -> dict[str, float]:
    """Train a classifier.

    Args:
        settings: What train reads of the config: the keys of `TrainSettings`.
        train_set: Folder with the set of TRAIN.
        val_select_set: Folder with the set of VAL_SELECT.
        val_calib_set: Folder with the set of VAL_CALIB.
        backbone: Folder of the backbone.
        classifier: Folder to write the classifier to.
        training_curve: Path to write metrics.csv to, one row an epoch.
        val_select_logits: Path to write the logits of VAL_SELECT to.
        val_select_labels: Path to write labels and groups of the same images to.
        val_calib_logits: Path to write the logits of VAL_CALIB to.
        val_calib_labels: Path to write labels and groups of the same images to.
        label_doubts: Path to write the page of labels that are likely wrong to, as HTML.

    Returns:
        Best epoch, its figures on VAL_SELECT, the images of each role, and the doubtful labels of TRAIN.

    Raises:
        NatixError: If an input breaks its contract, or a loss is not finite.
    """
    train_settings = config.parse(TrainSettings, settings)
    model_section = train_settings.model
    manifest = read_manifest(backbone, "backbone")
    if model_section.init_from_explora != ("adaptation" in manifest):
        raise ConfigError(
            "model.init_from_explora is true but the backbone has not been through adapt"
            if model_section.init_from_explora
            else "model.init_from_explora is false but the backbone is one that adapt has made"
        )
    description = read_json(Path(backbone) / BACKBONE_CONFIG)
    require_whole_patches(model_section.image_size, manifest["patch_size"])
    folders = {"train_set": train_set, "val_select_set": val_select_set, "val_calib_set": val_calib_set}
    sets = {SETS[role]: open_set(folders[SETS[role]], role) for role in (TRAIN, VAL_SELECT, VAL_CALIB)}
    require_one_division(sets)
    train = sets["train_set"]
    if warning := single_image_warning(require_each_class(train.labels, train.class_names)):
        Lines().say(f"{WARNING}{warning}")
    if adaptation := manifest.get("adaptation"):  # it has seen the TRAIN of its division, which may be TEST of another
        require_same("splits_sha256", adaptation["splits_sha256"], "backbone", train.splits_sha256, "train_set")
    inputs = train_worker.Inputs(train, sets["val_select_set"], sets["val_calib_set"], backbone, description, manifest)
    tensors, figures = launch(
        "train",
        train_worker.__name__,
        lambda: train_worker.compute(train_settings, inputs),
        train_settings,
        {**folders, "backbone": backbone},
        train_settings.num_gpus,
        train_settings.nodes,
    )
    head = {"type": model_section.head_type, "dropout": figures["dropout"], "pooling": figures["pooling"]}
    model = Classifier.from_description(description, head, len(train.class_names))
    model.load_state_dict(
        {name.removeprefix(CLASSIFIER): value for name, value in tensors.items() if name.startswith(CLASSIFIER)}
    )
    history = [Epoch(**row) for row in figures["history"]]
    doubts = Doubts(**figures["doubts"])
    drop = train_settings.training.label_doubts == "drop"
    best = best_epoch(history, train_settings.training.early_stopping)
    chosen = {name: value for name, value in asdict(best).items() if name.startswith(VAL_SELECT.lower())}
    provenance = {
        "dataset_fingerprint": train.dataset_fingerprint,
        "splits_sha256": train.splits_sha256,
        "backbone_sha256": manifest["weights_sha256"],
    }
    licences = {name: manifest["files"][name] for name in manifest["licence"]["files"]}
    Path(classifier).mkdir(parents=True, exist_ok=True)
    for name in licences:
        shutil.copyfile(Path(backbone) / name, Path(classifier) / name)
    written = write_classifier(
        classifier,
        model,
        {
            "class_names": train.class_names,
            "positive_classes": train.positive_classes,
            "transform": figures["transform"],
            "licence": manifest["licence"],
            "backbone_source": manifest["source"],
            "trained": {
                "epochs": len(history),
                "best_epoch": best.epoch,
                "monitor": train_settings.training.early_stopping.monitor,
                **chosen,
                "freeze_backbone": model_section.freeze_backbone,
                **({} if model_section.freeze_backbone else {"fine_tune": train_settings.training.fine_tune.method}),
                "ema": model_section.use_ema,
                **({"grid": figures["grid"]} if figures["grid"] else {}),
                **({"label_doubts_dropped": len(doubts.rows)} if drop else {}),
            },
            "prior": figures["prior"],
            "provenance": provenance,
        },
        licences,
    )
    write_csv(training_curve, metrics_rows(history))
    pairs = {VAL_SELECT: (val_select_logits, val_select_labels), VAL_CALIB: (val_calib_logits, val_calib_labels)}
    columns = {role: sets[SETS[role]].all_tags() for role in (TRAIN, VAL_SELECT, VAL_CALIB)}
    for role, paths in pairs.items():
        values, images = tensors[logits.logits_name(role)].numpy(), sets[SETS[role]]
        tags = Tags.of(columns[role], len(images), *columns.values())
        write_pair(paths, values, images, tags, written["model_sha256"])
    if figures["grid"]:
        print(_kept_head(figures["grid"]), flush=True)
    if figures["prior"]:
        print(figures["prior"]["sentence"], flush=True)
    shown = doubtful(train, doubts, drop, tuned=not model_section.freeze_backbone)
    write_bytes(label_doubts, render_doubts(shown).encode())
    if doubts.rows:
        todo = "left out of what weights were fitted on" if drop else "kept"
        print(
            f"{len(doubts.rows)} of {doubts.judged} labels of TRAIN are doubtful, {todo}: label_doubts.html", flush=True
        )
    return {
        "best_epoch": best.epoch,
        **chosen,
        **{f"images_{images.role.lower()}": len(images) for images in sets.values()},
        "label_doubts": len(doubts.rows),
    }


def _kept_head(grid: list[dict[str, Any]]) -> str:
    """A line that tells which head of a grid is kept; classifier.json has them all."""
    row = next(row for row in grid if row["kept"])
    settings = f"lr {row['lr']:g}, weight decay {row['weight_decay']:g}, dropout {row['dropout_rate']:g}"
    poolings = {other.get("pooling") for other in grid}  # `patches` has one of its own, which no row names
    settings += f", pooling {row['pooling']}" if len(poolings) > 1 else ""
    return f"{NOTE}of {len(grid)} heads the one kept has {settings}: val_select/acc {row['val_select_acc']:.4f}"
