"""What the pipelines UI shows of a step, as the metadata of a KFP artifact and as a file.

KFP reads the metadata. The file is for its local cache, which runs a step again when an artifact of it has no file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natix_lib.files import write_json
from natix_lib.steps import pod


def show_metrics(artifact: Any, values: Mapping[str, Any]) -> None:
    """Add `values` to the metadata of a KFP `Metrics` or `ClassificationMetrics` and write all of it to its path.

    A component's body ends with it, so the outputs of the step are all written then: KFP puts them into one folder.
    """
    artifact.metadata.update(values)
    write_json(artifact.path, dict(artifact.metadata))
    pod.written(Path(artifact.path).parent)
