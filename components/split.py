"""split: images and their index -> splits.json, a set of images for each role, all links, and the data report."""

from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def split(
    settings: dict[str, Any],
    previous_fingerprint: str,
    index: Input[Dataset],
    splits: Output[Artifact],
    train_set: Output[Dataset],
    val_select_set: Output[Dataset],
    val_calib_set: Output[Dataset],
    test_set: Output[Dataset],
    unlabelled_set: Output[Dataset],
    links: Output[Artifact],
    data_report: Output[HTML],
    metrics: Output[Metrics],
    images: Input[Dataset] | None = None,
    shards: Input[list[Dataset]] | None = None,
) -> None:
    """Divide the images into TRAIN, VAL_SELECT, VAL_CALIB and TEST without leaks.

    Args:
        settings: What the step reads of the config, docs/components.md.
        previous_fingerprint: What split.previous holds, as check tells it and as it must be here; "" compares nothing.
        index: The index of ingest, or of gather.
        images: The images of ingest.
        shards: In their place, the images of each shard.

    Returns:
        splits: Which image has which role.
        train_set: The images that fit the weights.
        val_select_set: The images that choose the epoch.
        val_calib_set: The images that policies are fitted on.
        test_set: The images that evaluate reads once.
        unlabelled_set: The images without a label, which adapt alone reads.
        links: Which images are joined, by which rule, and why.
        data_report: The page of the data.
        metrics: How many images each role has, and how many groups there are.
    """
    from natix_lib.steps import split
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        split.run(
            settings,
            images=images.path if images else [shard.path for shard in shards or []],
            index=index.path,
            splits=splits.path,
            train_set=train_set.path,
            val_select_set=val_select_set.path,
            val_calib_set=val_calib_set.path,
            test_set=test_set.path,
            unlabelled_set=unlabelled_set.path,
            links=links.path,
            data_report=data_report.path,
            previous_fingerprint=previous_fingerprint,
        ),
    )
