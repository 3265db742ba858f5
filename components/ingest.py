"""ingest: labelled images -> encoded images, their index, and what was rejected."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Metrics, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def ingest(
    settings: dict[str, Any],
    data_fingerprint: str,
    images: Output[Dataset],
    index: Output[Dataset],
    rejects: Output[Artifact],
    metrics: Output[Metrics],
) -> None:
    """Read labelled images of any supported format.

    Args:
        settings: What the step reads of the config, docs/components.md.
        data_fingerprint: What data_root holds, as check tells it and as it must be at the end; "" compares nothing.

    Returns:
        images: The encoded images.
        index: A row for each image, with its label, group and place.
        rejects: The images that could not be read, and why.
        metrics: How many images, rejects and classes there are.
    """
    from natix_lib.steps import ingest
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        ingest.run(
            settings,
            images=images.path,
            index=index.path,
            rejects=rejects.path,
            data_fingerprint=data_fingerprint,
        ),
    )
