"""A million images through every rule, assignment and splits.json, and inputs made to be hard.

An ordinary row is a frame of a drive of ten: places 12 m apart, hashes a few bits apart. Each hard input puts all rows
at one place, on few places, in one prefix, one crowd or one group, makes all of them black or each its own group; of
"32 bits" a fifth as many rows share half of their hash. What is measured is `divide`, its document and the document's
JSON. Each line is a process of its own, so that its peak memory, data included, is its own; seconds are CPU seconds but
for the wall's. The peer compares all pairs of hashes, as imagededup does. Run: `python -m benchmarks.grouping`.
"""

import argparse
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from natix_lib.config import Split
from natix_lib.data import division
from natix_lib.data.groups import joined
from natix_lib.data.windows import WINDOWS
from natix_lib.errors import DataError
from natix_lib.files import canonical_json

HARD = (
    "one place", "crossings", "dense town", "prefix", "cube", "code", "one hash", "all black", "one group", "no group",
)  # fmt: skip
HALF = "32 bits"  # rows that share them are a fifth of the others
DEGREE = 111_195.0
MOST = 1_000_000
PAIRS = "all pairs of hashes"


def draw(name: str, rows: int) -> dict[str, np.ndarray]:
    """Columns of a set."""
    generator = np.random.default_rng(0)
    drive, frame = np.divmod(np.arange(rows), 10)
    starts = generator.uniform(-0.5, 0.5, (rows // 10 + 1, 2))
    hashes = generator.integers(0, 2**64, rows // 10 + 1, dtype=np.uint64)[drive]
    for _ in range(3):
        hashes ^= np.uint64(1) << generator.integers(0, 64, rows).astype(np.uint64)
    columns = {
        "group": drive,
        "lat": 48 + 60 * starts[drive, 0] + 12 * frame / DEGREE,
        "lon": 300 * starts[drive, 1],
        "hash": hashes,
        "label": (drive % 3 == 0).astype(np.int64),
    }
    random = generator.integers(0, 2**64, rows, dtype=np.uint64)
    if name in ("one place", "crossings", "dense town"):
        spread = {"one place": 20, "crossings": 20, "dense town": 2000}[name] / DEGREE
        centre = generator.integers(0, 50 if name == "crossings" else 1, rows)
        columns["lat"] = 48 + centre * 130 / DEGREE + generator.normal(0, spread, rows)
        columns["lon"] = 11 + generator.normal(0, spread, rows)
    elif name in ("prefix", HALF):
        columns["hash"] = random >> np.uint64(32)
    elif name == "cube":
        columns["hash"] = generator.permutation(1 << int(np.ceil(np.log2(rows))))[:rows].astype(np.uint64)
    elif name == "code":  # of distance 5, BCH(31, 21): a hash is near none
        words = np.zeros(rows, dtype=np.uint64)
        for bit in range(20):
            words ^= np.where(np.arange(rows) >> bit & 1, np.uint64(0b11101101001 << bit), np.uint64(0))
        columns["hash"] = words
    elif name == "one hash":
        columns["hash"] = np.zeros(rows, dtype=np.uint64)
    elif name == "one group":
        columns["group"] = np.zeros(rows, dtype=np.int64)
    elif name == "no group":
        columns |= {"group": np.arange(rows), "hash": random, "lat": generator.uniform(-80, 80, rows)}
        columns["lon"] = generator.uniform(-180, 180, rows)
    return columns


def as_index(columns: dict[str, np.ndarray], black: bool) -> dict[str, list[Any]]:
    """The columns as an index gives them."""
    rows = len(columns["label"])
    index: dict[str, list[Any]] = {name: [None] * rows for name in division.COLUMNS}
    index["id"] = [f"images/{row:08d}.jpg" for row in range(rows)]
    index["sha256"] = ["0" * 64 if black else f"{row * 0x9E3779B97F4A7C15 % 2**64:016x}" * 4 for row in range(rows)]
    slots = np.random.default_rng(1).integers(0, 2**64, len(WINDOWS), dtype=np.uint64)
    index["hashes"] = [None if black else (value ^ slots).tobytes() for value in columns["hash"]]
    index["label"] = columns["label"].tolist()
    index["group"] = [str(group) for group in columns["group"].tolist()]
    return index | {name: columns[name].tolist() for name in ("lat", "lon")}


def measure(name: str, rows: int) -> None:
    index = as_index(draw(name, rows), name == "all black")
    assigning = 0.0
    assign = vars(division)["assign"]

    def timed(*arguments: Any) -> Any:
        nonlocal assigning
        start = time.process_time()
        try:
            return assign(*arguments)
        finally:
            assigning += time.process_time() - start

    vars(division)["assign"] = timed
    wall, start = time.perf_counter(), time.process_time()
    groups, outcome, dividing = "–", "made", 0.0
    try:
        made = division.divide(index, ["None", "Roadwork"], Split())
        dividing = time.process_time() - start
        groups = f"{made.group_count:,}"
        outcome = f"made, {len(canonical_json(made.document())) / 1e6:.0f} MB"
    except DataError as error:
        dividing = time.process_time() - start
        outcome = f"refused: {str(error)[:40]}..."
    total, wall = time.process_time() - start, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = [dividing - assigning, assigning, total - dividing, total, wall]
    print("|".join([name, f"{rows:,}", groups, outcome, *(f"{each:.1f}" for each in seconds), f"{peak:,.0f}"]))


def all_pairs(rows: int) -> None:
    """The peer: near-duplicates alone, every pair compared."""
    values = draw("ordinary", rows)["hash"]
    wall, start = time.perf_counter(), time.process_time()
    pairs = [np.nonzero(np.bitwise_count(values[row] ^ values[row:]) <= 4)[0] + row for row in range(len(values))]
    a = np.repeat(np.arange(len(values)), [len(near) for near in pairs])
    groups = len(np.unique(joined(len(values), a, np.concatenate(pairs))))
    total, wall = time.process_time() - start, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{PAIRS}|{rows:,}|{groups:,}|–|{total:.1f}|–|–|{total:.1f}|{wall:.1f}|{peak:,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "ROWS"), help="measure one input in this process")
    parser.add_argument("--rows", type=int, default=MOST, help="of the hard inputs")
    arguments = parser.parse_args()
    if arguments.one:
        name, rows = arguments.one[0], int(arguments.one[1])
        all_pairs(rows) if name == PAIRS else measure(name, rows)
        return
    sizes = [(PAIRS, 10_000), (HALF, arguments.rows // 5), *(("ordinary", rows) for rows in (10_000, 100_000, MOST))]
    table = Table(title="grouping and assignment")
    for column in (
        "input", "images", "groups", "division", "rules, CPU s", "assignment", "splits.json", "all", "wall s",
        "peak MiB",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column in ("input", "division") else "right")
    for name, rows in [*sizes, *((name, arguments.rows) for name in HARD)]:
        command = [sys.executable, "-m", "benchmarks.grouping", "--one", name, str(rows)]
        table.add_row(*subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().split("|"))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
