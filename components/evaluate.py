"""evaluate: TEST, once, through the bundle -> evaluation.json and report.html."""

from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def evaluate(
    settings: dict[str, Any],
    test_set: Input[Dataset],
    bundle: Input[Model],
    evaluation: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
) -> None:
    """Measure the bundle on TEST and show metrics, confusion matrix, ROC and report in the pipelines UI.

    Args:
        settings: What the step reads of the config, docs/components.md.
        test_set: The images of TEST.
        bundle: The bundle of export.

    Returns:
        evaluation: All figures as JSON.
        report: The page of the result.
        metrics: The figures that matter most.
        classification: The confusion matrix and the ROC.
    """
    from natix_lib.steps import evaluate
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        evaluate.run(
            settings,
            test_set=test_set.path,
            bundle=bundle.path,
            evaluation=evaluation.path,
            report=report.path,
            classification=classification,
        ),
    )
