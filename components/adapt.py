"""adapt: backbone + TRAIN and unlabelled images -> merged ExPLoRA teacher, curve, probe before and after."""

from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from natix_components.images import GPU_IMAGE


@dsl.component(base_image=GPU_IMAGE, install_kfp_package=False)
def adapt(
    settings: dict[str, Any],
    num_gpus: str,
    nodes: dict[str, Any],
    train_set: Input[Dataset],
    unlabelled_set: Input[Dataset],
    backbone: Input[Model],
    adapted_backbone: Output[Model],
    adaptation_curve: Output[Artifact],
    adaptation_report: Output[HTML],
    metrics: Output[Metrics],
) -> None:
    """Adapt the backbone, without labels, to TRAIN and to images that have none, on all GPUs of its task or nodes.

    Args:
        settings: What the step reads of the config, docs/components.md.
        num_gpus: GPUs of the task, or of each node, as a text.
        nodes: The TrainJob that computes in place of this task; empty for none.
        train_set: The images of TRAIN: it adapts to most groups, the probes before and after ask about the others.
        unlabelled_set: The images without a label, which it adapts to as well.
        backbone: The backbone of fetch.

    Returns:
        adapted_backbone: The backbone that goes on.
        adaptation_curve: The losses, step by step.
        adaptation_report: The page of the adaptation.
        metrics: The probes before and after, and the gain with its interval.
    """
    from natix_lib.steps import adapt
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        adapt.run(
            {**settings, "num_gpus": num_gpus, "nodes": nodes},
            train_set=train_set.path,
            unlabelled_set=unlabelled_set.path,
            backbone=backbone.path,
            adapted_backbone=adapted_backbone.path,
            adaptation_curve=adaptation_curve.path,
            adaptation_report=adaptation_report.path,
        ),
    )
