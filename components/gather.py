"""gather: the parts of all shards -> one index, and what was rejected."""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def gather(
    settings: dict[str, Any],
    part: Input[list[Dataset]],
    index: Output[Dataset],
    rejects: Output[Artifact],
    metrics: Output[Metrics],
) -> None:
    """Join what the shards of an ingest have listed.

    Args:
        settings: What ingest reads of the config, docs/components.md.
        part: The part of each shard, in any order.

    Returns:
        index: A row for each image, with its label, group and place.
        rejects: The images that could not be read, and why.
        metrics: How many images, rejects and classes there are.
    """
    from natix_lib.steps import gather
    from natix_lib.steps.shown import show_metrics

    show_metrics(metrics, gather.run(settings, part=[one.path for one in part], index=index.path, rejects=rejects.path))
