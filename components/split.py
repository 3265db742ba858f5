"""split: dataset -> splits.json."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components.images import CPU_IMAGE


@dsl.component(base_image=CPU_IMAGE, install_kfp_package=False)
def split(settings: dict, dataset: Input[Dataset], splits: Output[Artifact], metrics: Output[Metrics]):
    """Divide the dataset into TRAIN, VAL_SELECT, VAL_CALIB and TEST without leaks."""
    from natix_lib.steps import split
    from natix_lib.steps.shown import record

    record(metrics, split.run(settings, dataset.path, splits.path))
