"""Grouping by every rule and assignment, from ten thousand images to a million, and on inputs made to be hard.

An ordinary row is a frame of a drive of ten: places 12 m apart, hashes a few bits apart. Each hard input puts a million
rows at one place, on few places, in one prefix, one crowd or one group. Each line is a process of its own, so that its
peak memory is its own; seconds are CPU seconds of grouping and of assignment, data in memory. The peer compares all
pairs of ten thousand rows, as imagededup does. Run: `make bench-grouping`.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from natix_lib.data.duplicates import near_duplicates
from natix_lib.data.groups import joined, joined_by_all, same_source, same_value
from natix_lib.data.partition import Groups, assign
from natix_lib.data.places import within_metres
from natix_lib.errors import DataError

HARD = ("one place", "crossings", "dense town", "prefix", "cube", "code", "one hash", "one group", "no group")
DEGREE = 111_195.0
MOST = 1_000_000


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
    elif name == "prefix":
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


def group_and_assign(columns: dict[str, np.ndarray]) -> tuple[int, str]:
    """Groups, and whether a division was made."""
    ids = [f"{row:08d}" for row in range(len(columns["label"]))]
    smallest = joined_by_all(
        [
            same_value(columns["group"].tolist()),
            same_source(ids, [None] * len(ids)),
            within_metres(columns["lat"], columns["lon"], 100.0),
            near_duplicates(columns["hash"].tolist(), 4),
        ]
    )
    first, group = np.unique(smallest, return_inverse=True)
    counts = np.zeros((len(first), 2), dtype=np.int64)
    np.add.at(counts, (group, columns["label"]), 1)
    groups = Groups(
        [ids[row] for row in first], counts, np.zeros_like(counts), np.full(len(first), -1), np.full(len(first), -1)
    )
    try:
        assign(groups, np.array([0.6, 0.1, 0.15, 0.15]), 1, 0, ["None", "Roadwork"])
    except DataError:
        return len(first), "refused: too few groups"
    return len(first), "made"


def all_pairs(columns: dict[str, np.ndarray]) -> tuple[int, str]:
    """Near-duplicates alone, every pair compared."""
    values = columns["hash"]
    pairs = [np.nonzero(np.bitwise_count(values[row] ^ values[row:]) <= 4)[0] + row for row in range(len(values))]
    a = np.repeat(np.arange(len(values)), [len(near) for near in pairs])
    return len(np.unique(joined(len(values), a, np.concatenate(pairs)))), "–"


def measure(name: str, rows: int) -> None:
    columns = draw(name, rows)
    start = time.process_time()
    groups, division = (all_pairs if name == "all pairs of hashes" else group_and_assign)(columns)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}|{rows:,}|{groups:,}|{division}|{seconds:.1f}|{peak:,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "ROWS"), help="measure one input in this process")
    parser.add_argument("--rows", type=int, default=MOST, help="of the hard inputs")
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one[0], int(arguments.one[1]))
        return
    sizes = [("all pairs of hashes", 10_000), *(("ordinary", rows) for rows in (10_000, 100_000, MOST))]
    table = Table(title="grouping and assignment")
    for column in ("input", "images", "groups", "division", "CPU s", "peak MiB"):
        table.add_column(column, justify="left" if column in ("input", "division") else "right")
    for name, rows in [*sizes, *((name, arguments.rows) for name in HARD)]:
        command = [sys.executable, "-m", "benchmarks.grouping", "--one", name, str(rows)]
        table.add_row(*subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().split("|"))
    Console().print(table)


if __name__ == "__main__":
    main()
