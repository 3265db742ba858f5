"""shard: one shard's share of the labelled images -> encoded images, and their part of the index."""

from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Metrics, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def shard(
    settings: dict[str, Any],
    data_fingerprint: str,
    shard: str,
    images: Output[Dataset],
    part: Output[Dataset],
    metrics: Output[Metrics],
) -> None:
    """Read one shard's share of labelled images of any supported format.

    Args:
        settings: What ingest reads of the config, docs/components.md.
        data_fingerprint: What data_root holds, as check tells it and as it must be at the end; "" compares nothing.
        shard: Which shard, of how many, 2/3.

    Returns:
        images: The shard's encoded images.
        part: A row for each of them, with its label, group and place, and what was rejected.
        metrics: How many images and rejects the shard has.
    """
    from natix_lib.steps import shard as step
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        step.run(settings, shard=shard, images=images.path, part=part.path, data_fingerprint=data_fingerprint),
    )
