"""obtain: the address of a bundle -> the bundle, opened with all its checks."""

from typing import Any

from kfp import dsl
from kfp.dsl import Metrics, Model, Output

from natix_components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def obtain(
    settings: dict[str, Any],
    bundle_fingerprint: str,
    old_bundle: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Get the bundle whose policy is renewed.

    Args:
        settings: What the step reads of the config, docs/components.md.
        bundle_fingerprint: What the bundle is, as check tells it and as it must be here; "" compares nothing.

    Returns:
        old_bundle: The bundle whose policy is renewed.
        metrics: How far golden images are from their logits.
    """
    from natix_lib.steps import obtain
    from natix_lib.steps.shown import show_metrics

    show_metrics(
        metrics,
        obtain.run(
            settings,
            old_bundle=old_bundle.path,
            bundle_fingerprint=bundle_fingerprint,
        ),
    )
