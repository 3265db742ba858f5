"""fetch: hub id, folder, gs:// or s3:// -> backbone. Beside check the only task that sees the hub's token."""

from typing import Any

from kfp import dsl
from kfp.dsl import Metrics, Model, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def fetch(
    settings: dict[str, Any],
    backbone_fingerprint: str,
    token_secret: str,
    backbone: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Copy a backbone and load it strictly.

    Args:
        settings: What the step reads of the config, docs/components.md.
        backbone_fingerprint: What the backbone's folder holds, as check tells it, or its commit; "" compares nothing.
        token_secret: Id in Secret Manager of the hub's token; empty where HF_TOKEN is set or none is needed.

    Returns:
        backbone: The backbone's weights and config.
        metrics: How many parameters it has.
    """
    from natix_lib.steps import fetch
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        fetch.run(
            settings,
            backbone=backbone.path,
            backbone_fingerprint=backbone_fingerprint,
            token_secret=token_secret,
        ),
    )
