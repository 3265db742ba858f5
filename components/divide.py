"""divide: new images, their index and a bundle -> splits.json, a set of images for each role, links, data report."""

from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def divide(
    settings: dict[str, Any],
    images: Input[Dataset],
    index: Input[Dataset],
    old_bundle: Input[Model],
    splits: Output[Artifact],
    val_select_set: Output[Dataset],
    val_calib_set: Output[Dataset],
    test_set: Output[Dataset],
    links: Output[Artifact],
    data_report: Output[HTML],
    metrics: Output[Metrics],
) -> None:
    """Divide new images into VAL_SELECT, VAL_CALIB and TEST, without what the bundle's model was fitted on.

    Args:
        settings: What the step reads of the config, docs/components.md.
        images: The images of ingest.
        index: The index of ingest.
        old_bundle: The bundle whose policy is renewed.

    Returns:
        splits: Which image has which role.
        val_select_set: The images that say where the accept rule begins.
        val_calib_set: The images that the policy is fitted on.
        test_set: The images that evaluate reads once.
        links: Which images are joined, by which rule, and why.
        data_report: The page of the data.
        metrics: How many images each role has, and how many groups there are.
    """
    from natix_lib.steps import divide
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        divide.run(
            settings,
            images=images.path,
            index=index.path,
            old_bundle=old_bundle.path,
            splits=splits.path,
            val_select_set=val_select_set.path,
            val_calib_set=val_calib_set.path,
            test_set=test_set.path,
            links=links.path,
            data_report=data_report.path,
        ),
    )
