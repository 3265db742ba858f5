"""Split of many images into role sets: seconds, peak memory and bytes, beside Hugging Face datasets on the same files.

The images are random bytes of the size of a JPEG: split decodes none. Each line is a process of its own, so that its
peak memory is its own. The peer is given who goes where and does the copying alone: it opens the same shards, selects
each role's rows and saves them. natix also reads the index, groups, divides, and hashes what it reads and writes.
Run: `make bench-sets`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from natix_lib.contracts import ARTIFACTS, STEPS, write_manifest
from natix_lib.data.arrow import BATCH_ROWS, ShardWriter, images_schema
from natix_lib.data.index import index_table, write_index
from natix_lib.data.windows import WINDOWS
from natix_lib.files import read_json
from natix_lib.steps import split


def write_images(folder: Path, rows: int, size: int) -> None:
    """Images of `size` random bytes, drives of 20 frames, two classes."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    writer, schema = ShardWriter(folder / "images", images_schema()), images_schema()
    ids = [f"{row:07d}.jpg" for row in range(rows)]
    for start in range(0, rows, BATCH_ROWS):
        chosen = ids[start : start + BATCH_ROWS]
        images = [{"id": name, "image": {"bytes": generator.bytes(size), "path": None}} for name in chosen]
        writer.add(pa.RecordBatch.from_pylist(images, schema=schema))
    files = writer.close()
    hashes = generator.integers(0, 2**64, (rows, len(WINDOWS)), dtype=np.uint64)
    index_rows = [
        {
            "id": name,
            "label": row // 20 % 2,
            "group": f"drive {row // 20}",
            "sha256": f"{row:064d}",
            "hashes": hashes[row].tobytes(),
            "width": 341,
            "height": 256,
            "bytes": size,
        }
        for row, name in enumerate(ids)
    ]
    body = {
        "class_names": ["None", "Roadwork"],
        "positive_classes": ["Roadwork"],
        "rows": rows,
        "rejected": 0,
        "warnings": [],
        "resize_shorter_side": 256,
        "fingerprint": "0" * 64,
    }
    sha256 = write_index(folder / "index.parquet", index_table(index_rows, []), [], body)
    write_manifest(folder / "images", "images", {"rows": rows, "index_sha256": sha256}, files)


def natix(folder: Path) -> None:
    """The step."""
    inputs = {name: str(folder / ARTIFACTS[name].file) for name in STEPS["split"].inputs}
    outputs = {name: str(folder / ARTIFACTS[name].file) for name in STEPS["split"].outputs}
    split.run({"split": {}}, **inputs, **outputs)


def peer(folder: Path) -> None:
    """Hugging Face datasets: select and save."""
    import datasets

    datasets.disable_progress_bars()
    shards = [datasets.Dataset.from_file(str(path)) for path in sorted((folder / "images").glob("*.arrow"))]
    whole = datasets.concatenate_datasets(shards).cast_column("image", datasets.Image(decode=False))
    row_of = {name: row for row, name in enumerate(whole["id"])}
    for role, ids in read_json(folder / "splits.json")["roles"].items():
        whole.select([row_of[name] for name in ids]).save_to_disk(str(folder / "peer" / role))


def measured(work: str, folder: Path) -> dict[str, float]:
    """Seconds, peak MB and MB read of one of the two, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.role_sets", "--work", work, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Print the table, or do one line's work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--bytes", type=int, default=30_000)
    parser.add_argument("--work", choices=("natix", "peer"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.work:
        start = time.perf_counter()
        {"natix": natix, "peer": peer}[options.work](options.folder)
        seconds = time.perf_counter() - start
        read = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(json.dumps({"seconds": seconds, "peak": peak, "read": int(read) / 1e6}))
        return
    table = Table("images", "work", "seconds", "peak MB", "MB read by calls", title=f"{options.bytes} bytes an image")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_images(folder, rows, options.bytes)
            for work in ("natix", "peer"):
                figures = measured(work, folder)
                table.add_row(f"{rows:,}", work, *(f"{figures[key]:,.1f}" for key in ("seconds", "peak", "read")))
    Console().print(table)


if __name__ == "__main__":
    main()
