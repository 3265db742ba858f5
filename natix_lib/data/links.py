"""links.parquet: every link of every rule, so that anyone can ask why two images are one group.

A row is a link of the rule's tree, not a pair of the group: 20,000 frames at one place are 200 million pairs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from natix_lib.data.groups import Links
from natix_lib.files import replacing

SCHEMA = pa.schema([(name, pa.string()) for name in ("rule", "image", "joined_to", "evidence")])
ROWS = 1 << 16  # of a row group, all that is in memory at once


def write_links(path: str | Path, ids: Sequence[str], rules: Mapping[str, Links]) -> None:
    """Write the links of all rules, whole or not at all.

    Args:
        path: Path of the file.
        ids: Id of each image, (n,).
        rules: What each rule joins, rows as in `ids`.

    Raises:
        StorageError: If it cannot be written.
    """
    with replacing(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for rule, links in rules.items():
            linked = links.rows
            for start in range(0, len(linked), ROWS):
                rows = linked[start : start + ROWS]
                columns = (
                    [rule] * len(rows),
                    [ids[row] for row in rows],
                    [ids[row] for row in links.to[rows]],
                    [links.why(int(row)) for row in rows],
                )
                arrays = [pa.array(column, pa.string()) for column in columns]
                writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
