"""evaluate: TEST, once, through the bundle -> evaluation.json and report.html."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def evaluate(
    settings: dict,
    dataset: Input[Dataset],
    splits: Input[Artifact],
    bundle: Input[Model],
    evaluation: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
):
    """Measure the bundle on TEST and show metrics, confusion matrix, ROC and report in the pipelines UI."""
    from natix_lib.steps import evaluate
    from natix_lib.steps.shown import record

    record(metrics, evaluate.run(settings, dataset.path, splits.path, bundle.path, evaluation.path, report.path))
    evaluate.show(evaluation.path, classification)
