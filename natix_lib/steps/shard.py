"""shard: one shard's share of the labelled images -> encoded images, and their part of the index."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natix_lib import config
from natix_lib.config.step_settings import IngestSettings
from natix_lib.contracts import write_manifest
from natix_lib.data.parts import Shard, write_part
from natix_lib.steps.ingest import decode_shard


def run(
    settings: Mapping[str, Any], *, shard: str, images: str, part: str, data_fingerprint: str = ""
) -> dict[str, float]:
    """List all images of the source, and read and write those of one shard.

    Args:
        settings: What ingest reads of the config.
        shard: Which shard, of how many: "2/3".
        images: Folder to write the shard's encoded images to, by id; it may stay without one.
        part: Path to write what is known of each of them to, as Parquet.
        data_fingerprint: What was told of the source, see `steps.fingerprints`; "" where nothing was.

    Returns:
        Images and rejected images of the shard.

    Raises:
        NatixError: If the source cannot be read or was changed meanwhile, a label is missing, or classes do not fit
            the config.
    """
    share = Shard.read(shard)
    made, files = decode_shard(config.parse(IngestSettings, settings), share, Path(images), data_fingerprint)
    sha256 = write_part(part, made, share)
    write_manifest(images, "images", {"rows": made.table.num_rows, "index_sha256": sha256}, files)
    return {"images": made.table.num_rows, "rejected": len(made.rejects)}
