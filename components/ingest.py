"""ingest: labelled images of any supported format -> dataset."""

from kfp import dsl
from kfp.dsl import Dataset, Metrics, Output

from components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def ingest(settings: dict, data_version: str, dataset: Output[Dataset], metrics: Output[Metrics]):
    """Read images and labels; `data_version` only tells the cache that the source has changed."""
    from natix_lib.steps import ingest
    from natix_lib.steps.shown import record

    record(metrics, ingest.run(settings, dataset.path))
