"""What the pipelines UI shows of a step, as the metadata of a KFP artifact and as a file.

KFP reads the metadata. The file is for its local cache, which runs a step again when an artifact of it has no file.
"""

from collections.abc import Mapping
from typing import Any

from natix_lib.files import write_json


def show_metrics(artifact: Any, values: Mapping[str, Any]) -> None:
    """Add `values` to the metadata of a KFP `Metrics` or `ClassificationMetrics` and write all of it to its path."""
    artifact.metadata.update(values)
    write_json(artifact.path, dict(artifact.metadata))
