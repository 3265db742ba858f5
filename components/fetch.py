"""fetch: hub id, folder or gs:// -> backbone. The only task that sees the hub's token."""

from typing import Any

from kfp import dsl
from kfp.dsl import Metrics, Model, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def fetch(
    settings: dict[str, Any],
    backbone_version: str,
    token_secret: str,
    backbone: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Copy a backbone and load it strictly; `backbone_version` only tells the cache that the source has changed."""
    from natix_lib.steps import fetch
    from natix_lib.steps.shown import show_metrics

    show_metrics(metrics, fetch.run(settings, backbone=backbone.path, token_secret=token_secret))
