"""score: sets of new images, a bundle -> their logits and labels."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def score(
    settings: dict[str, Any],
    val_select_set: Input[Dataset],
    val_calib_set: Input[Dataset],
    old_bundle: Input[Model],
    val_select_logits: Output[Artifact],
    val_select_labels: Output[Artifact],
    val_calib_logits: Output[Artifact],
    val_calib_labels: Output[Artifact],
    metrics: Output[Metrics],
) -> None:
    """Score the images of VAL_SELECT and VAL_CALIB through the bundle.

    Args:
        settings: What the step reads of the config, docs/components.md.
        val_select_set: The images of VAL_SELECT.
        val_calib_set: The images of VAL_CALIB.
        old_bundle: The bundle whose policy is renewed.

    Returns:
        val_select_logits: The logits of VAL_SELECT.
        val_select_labels: The labels of VAL_SELECT.
        val_calib_logits: The logits of VAL_CALIB.
        val_calib_labels: The labels of VAL_CALIB.
        metrics: How many images each role has.
    """
    from natix_lib.steps import score
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        score.run(
            settings,
            val_select_set=val_select_set.path,
            val_calib_set=val_calib_set.path,
            old_bundle=old_bundle.path,
            val_select_logits=val_select_logits.path,
            val_select_labels=val_select_labels.path,
            val_calib_logits=val_calib_logits.path,
            val_calib_labels=val_calib_labels.path,
        ),
    )
