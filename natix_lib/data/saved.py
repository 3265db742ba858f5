"""A folder that `datasets.save_to_disk` wrote: Arrow streams, listed in the state.json beside them.

Read by pyarrow and not by `datasets.load_from_disk`, which takes a stream that was cut off between two batches for a
whole one and follows no role. Only what state.json lists is read: `map` and `filter` leave cache-*.arrow beside it.
"""

import json
import mmap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from natix_lib.config import Columns
from natix_lib.data.listing import SPLITS, STATE, Listing, role_of_name
from natix_lib.data.parquet import Kind, from_parquet
from natix_lib.data.rows import Source, readable, some
from natix_lib.errors import DataError

END = b"\xff\xff\xff\xff\0\0\0\0"  # how a stream ends that was closed
BESIDE = (STATE, SPLITS, "dataset_info.json")


def from_saved(listing: Listing, columns: Columns) -> Source:
    """Rows of a saved data set, and their images.

    Raises:
        DataError: If it is not whole, or there are two.
    """
    files = [path for folder in _folders(listing) for path in _files(listing, folder)]
    beside = {path for path in listing.files if path.name in BESIDE}
    listing = replace(listing, files=[path for path in listing.files if path not in beside])
    return from_parquet(listing, files, columns, ARROW)


def _folders(listing: Listing) -> list[Path]:
    """Folders of the splits, or the one folder."""
    states = [path.parent for path in listing.files if path.name == STATE]
    tables = [path for path in listing.files if path.name == SPLITS]
    if len(tables) > 1:
        raise DataError(f"{some(tables)} are data sets of their own: set data.data_root to the folder of one")
    if tables:
        splits = _json(listing.root, tables[0], "splits")
        listed = [tables[0].parent / str(name) for name in splits]
        lacking = [folder for folder in listed if folder not in states]
        if lacking or set(states) != set(listed):
            other = lacking or sorted(set(states) - set(listed))
            word = "has no" if lacking else "has a"
            raise DataError(
                f"{tables[0]} lists the splits {some(splits)}, and {some(other)} {word} {STATE}: the folder is not as "
                "datasets.save_to_disk wrote it"
            )
        return listed
    if not states:
        raise DataError(f"data.data_root {listing.place} has no {STATE} as datasets.save_to_disk writes it")
    if len(states) > 1 and not all(folder.parts and role_of_name(folder.name) for folder in states):
        raise DataError(
            f"folders {some(states)} are data sets of their own: set data.data_root to one, or name them by split roles"
        )
    return states


def _files(listing: Listing, folder: Path) -> list[Path]:
    state = folder / STATE
    names = []
    for entry in _json(listing.root, state, "_data_files"):
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or folder / name not in listing.files:
            raise DataError(f"{state} lists the file {name!r}, which is not there: the data set is not whole")
        names.append(folder / name)
    if not names:
        raise DataError(f"{state} lists no file")
    return names


def _json(root: Path, path: Path, key: str) -> list[Any]:
    try:
        document = json.loads((root / path).read_bytes())
        if isinstance(document, dict) and document.get("_indices_data_files"):
            raise ValueError("it selects rows by a file of indices: save it again with datasets 2.0 or newer")
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise ValueError(f"it must be an object with a list {key}")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{readable(path.as_posix())} cannot be read: {error}") from error
    values: list[Any] = document[key]
    return values


def _stream(path: Path) -> Any:
    """An open Arrow stream on a memory map; by file number, because Arrow takes names in UTF-8 only."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise ValueError("it is empty")
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if content[-len(END) :] != END:
        raise ValueError("it does not end as an Arrow stream does, so it is cut off or of another format")
    return pa.ipc.open_stream(pa.py_buffer(content))


def _batches(path: Path, columns: list[str], rows: int) -> Iterator[Any]:
    """The batches of a stream, in parts of at most `rows`, their offsets checked before they are followed."""
    for batch in _stream(path):
        chosen = batch.select(columns)
        chosen.validate(full=True)
        for start in range(0, chosen.num_rows, rows):
            yield chosen.slice(start, rows)


ARROW = Kind("Arrow", lambda path: _stream(path).schema, _batches)
