"""sweep: VAL_CALIB logits -> thresholds.json."""

from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Metrics, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def sweep(
    settings: dict[str, Any],
    val_calib_logits: Input[Artifact],
    val_calib_labels: Input[Artifact],
    thresholds: Output[Artifact],
    sweep_curve: Output[Artifact],
    sweep_report: Output[HTML],
    metrics: Output[Metrics],
) -> None:
    """Choose the rejection threshold on the exact curve over all thresholds.

    Args:
        settings: What the step reads of the config, docs/components.md.
        val_calib_logits: The logits of VAL_CALIB.
        val_calib_labels: The labels of VAL_CALIB.

    Returns:
        thresholds: The policy with its threshold.
        sweep_curve: Every threshold with its figures.
        sweep_report: The page of the sweep.
        metrics: The threshold and its figures.
    """
    from natix_lib.steps import sweep
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        sweep.run(
            settings,
            val_calib_logits=val_calib_logits.path,
            val_calib_labels=val_calib_labels.path,
            thresholds=thresholds.path,
            sweep_curve=sweep_curve.path,
            sweep_report=sweep_report.path,
        ),
    )
