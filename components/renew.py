"""renew: a bundle, a new policy and new splits -> a new bundle with the same model."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def renew(
    settings: dict[str, Any],
    old_bundle: Input[Model],
    val_calib_set: Input[Dataset],
    splits: Input[Artifact],
    val_calib_logits: Input[Artifact],
    scrcparams: Input[Artifact],
    bundle: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Check the chain of hashes, write and reload the new bundle, and publish it where the config says.

    Args:
        settings: What the step reads of the config, docs/components.md.
        old_bundle: The bundle whose policy is renewed.
        val_calib_set: The new images that the policy was fitted on.
        splits: The roles of the new images.
        val_calib_logits: The logits that the policy was fitted on.
        scrcparams: The policy of calibrate.

    Returns:
        bundle: The same model with the new policy.
        metrics: Whether the new policy is certified, and the size of the bundle.
    """
    from natix_lib.steps import renew
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        renew.run(
            settings,
            old_bundle=old_bundle.path,
            val_calib_set=val_calib_set.path,
            splits=splits.path,
            val_calib_logits=val_calib_logits.path,
            scrcparams=scrcparams.path,
            bundle=bundle.path,
        ),
    )
