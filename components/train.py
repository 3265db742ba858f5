"""train (GPU): TRAIN and VAL_SELECT -> classifier, doubtful labels; and its logits, of VAL_CALIB too."""

from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from natix_components.images import GPU_IMAGE


@dsl.component(base_image=GPU_IMAGE, install_kfp_package=False)
def train(
    settings: dict[str, Any],
    num_gpus: str,
    nodes: dict[str, Any],
    train_set: Input[Dataset],
    val_select_set: Input[Dataset],
    val_calib_set: Input[Dataset],
    backbone: Input[Model],
    classifier: Output[Model],
    training_curve: Output[Artifact],
    val_select_logits: Output[Artifact],
    val_select_labels: Output[Artifact],
    val_calib_logits: Output[Artifact],
    val_calib_labels: Output[Artifact],
    label_doubts: Output[HTML],
    metrics: Output[Metrics],
) -> None:
    """Train the classifier, keep the epoch that training.early_stopping.monitor likes best, and give logits.

    Args:
        settings: What the step reads of the config, docs/components.md.
        num_gpus: GPUs of the task, or of each node, as a text.
        nodes: The TrainJob that computes in place of this task; empty for none.
        train_set: The images of TRAIN.
        val_select_set: The images that choose the epoch; their logits are given.
        val_calib_set: The images that policies are fitted on; their logits are given.
        backbone: The backbone of fetch or of adapt.

    Returns:
        classifier: The weights of the best epoch.
        training_curve: The figures, epoch by epoch.
        val_select_logits: The logits of VAL_SELECT.
        val_select_labels: The labels of VAL_SELECT.
        val_calib_logits: The logits of VAL_CALIB.
        val_calib_labels: The labels of VAL_CALIB.
        label_doubts: The page of the labels of TRAIN that are likely wrong.
        metrics: The best epoch and its figures.
    """
    from natix_lib.steps import train
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        train.run(
            {**settings, "num_gpus": num_gpus, "nodes": nodes},
            train_set=train_set.path,
            val_select_set=val_select_set.path,
            val_calib_set=val_calib_set.path,
            backbone=backbone.path,
            classifier=classifier.path,
            training_curve=training_curve.path,
            val_select_logits=val_select_logits.path,
            val_select_labels=val_select_labels.path,
            val_calib_logits=val_calib_logits.path,
            val_calib_labels=val_calib_labels.path,
            label_doubts=label_doubts.path,
        ),
    )
