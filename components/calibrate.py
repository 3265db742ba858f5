"""calibrate: VAL_CALIB logits, and where given those of VAL_SELECT -> scrcparams.json."""

from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Metrics, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def calibrate(
    settings: dict[str, Any],
    val_calib_logits: Input[Artifact],
    val_calib_labels: Input[Artifact],
    scrcparams: Output[Artifact],
    scrc_curve: Output[Artifact],
    calibration_report: Output[HTML],
    metrics: Output[Metrics],
    val_select_logits: Input[Artifact] | None = None,
    val_select_labels: Input[Artifact] | None = None,
) -> None:
    """Fit the temperature and certify the accept rule.

    Args:
        settings: What the step reads of the config, docs/components.md.
        val_calib_logits: The logits of VAL_CALIB.
        val_calib_labels: The labels of VAL_CALIB.
        val_select_logits: The logits of VAL_SELECT, of the same weights.
        val_select_labels: The labels of VAL_SELECT.

    Returns:
        scrcparams: The policy with its temperature and guarantee.
        scrc_curve: Every threshold with its bound.
        calibration_report: The page of the calibration.
        metrics: The temperature, the threshold and its bound.
    """
    from natix_lib.steps import calibrate
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        calibrate.run(
            settings,
            val_calib_logits=val_calib_logits.path,
            val_calib_labels=val_calib_labels.path,
            val_select_logits=val_select_logits.path if val_select_logits else "",
            val_select_labels=val_select_labels.path if val_select_labels else "",
            scrcparams=scrcparams.path,
            scrc_curve=scrc_curve.path,
            calibration_report=calibration_report.path,
        ),
    )
