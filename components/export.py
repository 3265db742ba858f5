"""export: classifier + exactly one policy + splits -> bundle."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def export(
    settings: dict[str, Any],
    val_calib_set: Input[Dataset],
    splits: Input[Artifact],
    classifier: Input[Model],
    val_calib_logits: Input[Artifact],
    thresholds: Input[Artifact],
    scrcparams: Input[Artifact],
    bundle: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Check the chain of hashes, write and reload the bundle, and publish it where the config says.

    Args:
        settings: What the step reads of the config, docs/components.md.
        val_calib_set: The images on which ONNX must repeat the logits.
        splits: The roles of the images.
        classifier: The classifier of train.
        val_calib_logits: The logits that the policies were fitted on.
        thresholds: The policy of sweep.
        scrcparams: The policy of calibrate.

    Returns:
        bundle: The model with its one policy, which is what serving needs.
        metrics: How close ONNX is to training, and the size of the bundle.
    """
    from natix_lib.steps import export
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        export.run(
            settings,
            val_calib_set=val_calib_set.path,
            splits=splits.path,
            classifier=classifier.path,
            val_calib_logits=val_calib_logits.path,
            thresholds=thresholds.path,
            scrcparams=scrcparams.path,
            bundle=bundle.path,
        ),
    )
