"""gather: the parts of all shards -> one index, and what was rejected."""

from collections.abc import Mapping, Sequence
from typing import Any

from natix_lib import config
from natix_lib.config.step_settings import IngestSettings
from natix_lib.data.parts import read_parts
from natix_lib.steps.ingest import finish, say


def run(settings: Mapping[str, Any], *, part: Sequence[str], index: str, rejects: str) -> dict[str, float]:
    """Join the parts of all shards, and judge them together.

    Args:
        settings: What ingest reads of the config.
        part: The files that the shards have written, in any order.
        index: Path to write what is known of each image to, as Parquet.
        rejects: Path to write id and reason of each image that cannot be used to, as CSV; it is written also when that
            ends the step.

    Returns:
        Images, rejected images and classes.

    Raises:
        ContractError: If a shard's part is missing, or shards have read different data.
        DataError: If more images than `data.max_reject_fraction`, or all of a class, cannot be used.
    """
    data = config.parse(IngestSettings, settings).data
    whole = read_parts(part)
    say(whole.listed, data)
    return finish(whole, data, index, rejects)[0]
