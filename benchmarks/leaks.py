"""What a division lets through when no column names drives: neighbouring frames, and figures on TEST that are too good.

On real photographs (NATIX_TEST_DATA): 468 dashcam frames of three drives, about a second apart, and 399 photographs
from the web, all without their group column. First, 40 frames of one drive among the web's: how many of the 39
neighbours are in one group and how many in different splits. Then every stretch of 15 frames, and every photograph of
the web, gets a random label: nothing can be learned, so 50% is honest, and what a nearest neighbour on tiny pictures
reaches above it on the drives' TEST frames is leaked. Peers in the same run: a random division, and scikit-learn's
StratifiedGroupKFold where every image is its own group, as no column tells others. Run: `python -m benchmarks.leaks`.
"""

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import StratifiedGroupKFold

from natix_lib.config import Split
from natix_lib.data.division import COLUMNS, divide
from natix_lib.data.images import prepare

DATA = Path(os.environ.get("NATIX_TEST_DATA", "../shared/data")) / "roadwork-real"
SEEDS = 24
FRAMES, STRETCH = 40, 15
RATIOS = (0.4, 0.1, 0.1, 0.4)  # a TEST that can hold a whole drive
FOLDS = 20  # of which 8, 2, 2 and 8 are the roles
START = datetime(2025, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Frames:
    """Images in the order in which they were taken, (n,)."""

    ids: list[str]
    drives: list[str]
    hashes: list[bytes | None]
    pixels: np.ndarray

    def only(self, rows: Sequence[int]) -> "Frames":
        return Frames(
            [self.ids[row] for row in rows],
            [self.drives[row] for row in rows],
            [self.hashes[row] for row in rows],
            self.pixels[list(rows)],
        )

    @property
    def filmed(self) -> np.ndarray:
        return np.array([drive.startswith("camvid") for drive in self.drives])

    @property
    def neighbours(self) -> np.ndarray:
        """Row of each frame that has a next one in its drive."""
        drives = np.array(self.drives)
        return np.flatnonzero((drives[:-1] == drives[1:]) & self.filmed[:-1])


def read() -> Frames:
    with (DATA / "manifest.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["image"])
    prepared = [prepare((DATA / row["image"]).read_bytes(), 384, 1 << 30) for row in rows]
    tiny = [Image.open(io.BytesIO(image.content)).convert("RGB").resize((8, 8)) for image in prepared]
    return Frames(
        [row["image"] for row in rows],
        [row["group"] for row in rows],
        [image.hashes for image in prepared],
        np.stack([np.asarray(image, dtype=np.float64).ravel() for image in tiny]),
    )


def nameless(frames: Frames) -> Frames:
    """The same under names that tell nothing."""
    codes = np.random.default_rng(0).choice(1 << 40, len(frames.ids), replace=False)
    return replace(frames, ids=[f"{code:010x}.jpg" for code in codes.tolist()])


Divide = Callable[[Frames, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def by_natix(
    frames: Frames,
    labels: np.ndarray,
    seed: int,
    use_group: bool = False,
    timed: bool = False,
    settings: Mapping[str, object] = MappingProxyType({}),
) -> tuple[np.ndarray, np.ndarray]:
    """Role and group of each image."""
    count = len(frames.ids)
    time: list[str | None] = [None] * count
    day = {drive: number for number, drive in enumerate(sorted(set(frames.drives)))}
    for row in range(count if timed else 0):
        if frames.filmed[row]:
            time[row] = (START + timedelta(days=day[frames.drives[row]], seconds=row)).isoformat()
    empty: dict[str, Sequence[Any]] = {name: [None] * count for name in COLUMNS}
    columns = empty | {
        "id": frames.ids,
        "label": labels.tolist(),
        "group": frames.drives if use_group else [None] * count,
        "captured_at": time,
        "sha256": frames.ids,
        "hashes": frames.hashes,
    }
    ratios = dict(zip(("train", "val_select", "val_calib", "test"), RATIOS, strict=True))
    division = divide(columns, ["A", "B"], Split.model_validate({"seed": seed, "ratios": ratios, **settings}))
    place = {name: row for row, name in enumerate(division.ids)}
    rows = [place[name] for name in frames.ids]
    return division.roles[rows], division.groups[rows]


def at_random(frames: Frames, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(labels))
    roles = np.empty(len(labels), dtype=np.int64)
    roles[order] = np.searchsorted(np.cumsum(RATIOS)[:-1], np.arange(len(labels)) / len(labels), side="right")
    return roles, np.arange(len(labels))


def by_folds(frames: Frames, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rows, roles = np.arange(len(labels)), np.empty(len(labels), dtype=np.int64)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(rows, labels, rows)
    for number, (_, fold) in enumerate(folds):
        roles[fold] = np.searchsorted(np.cumsum(RATIOS)[:-1] * FOLDS - 1e-9, number, side="right")
    return roles, rows


OFF = {"drive_gap_s": 0, "drive_names": False, "drive_looks": False}


def one_drive(frames: Frames) -> Table:
    table = Table(title=f"{FRAMES} frames of one drive among 399 others, mean of three drives and {SEEDS} seeds")
    for column in ("division", "what tells of drives", "neighbours in one group of 39", "in different splits"):
        table.add_column(column, justify="right" if "in" in column[:14] and "division" not in column else "left")
    web = np.flatnonzero(~frames.filmed).tolist()
    drives = [
        np.flatnonzero(np.array(frames.drives) == drive)[:FRAMES].tolist() for drive in sorted(set(frames.drives))
    ]
    sets = [frames.only([*web, *rows]) for rows in drives if len(rows) == FRAMES]
    counted = [
        replace(some, ids=[f"{'frame' if film else 'web'}_{row:04d}.jpg" for row, film in enumerate(some.filmed)])
        for some in sets
    ]
    cases: list[tuple[str, str, Any, Divide]] = [
        ("random", "–", sets, at_random),
        ("StratifiedGroupKFold", "–", sets, by_folds),
        ("natix without its drive rules", "–", sets, partial(by_natix, settings=OFF)),
        ("natix", "nothing but pixels", [nameless(some) for some in sets], by_natix),
        ("natix", "frame_0001 to frame_0040", counted, by_natix),
        ("natix", "names with drive and frame", sets, by_natix),
        ("natix", "captured_at", [nameless(some) for some in sets], partial(by_natix, timed=True)),
        ("natix", "group", sets, partial(by_natix, use_group=True)),
    ]
    for name, told, variants, function in cases:
        together, divided = [], []
        for some in variants:
            for seed in range(SEEDS if function in (at_random, by_folds) else 3):
                labels = np.random.default_rng(seed).integers(0, 2, len(some.ids))
                roles, groups = function(some, labels, seed)
                a = some.neighbours
                together.append((groups[a] == groups[a + 1]).sum())
                divided.append((roles[a] != roles[a + 1]).sum())
        table.add_row(name, told, f"{np.mean(together):.1f}", f"{np.mean(divided):.1f}")
    return table


def stretch_labels(frames: Frames, seed: int) -> np.ndarray:
    generator = np.random.default_rng((seed, 1))
    drives = np.array(frames.drives)
    labels = generator.integers(0, 2, len(drives))
    for drive in sorted(set(drives[frames.filmed])):
        rows = np.flatnonzero(drives == drive)
        labels[rows] = np.repeat(generator.integers(0, 2, len(rows) // STRETCH + 1), STRETCH)[: len(rows)]
    return labels


def stretches(frames: Frames) -> Table:
    table = Table(title=f"a random label for each stretch of {STRETCH} frames (honest: .50), {SEEDS} seeds")
    for column in (
        "division",
        "what tells of drives",
        "accuracy on the drives' TEST frames",
        "± s.e.",
        "neighbour in TRAIN",
    ):
        table.add_column(column, justify="left" if column in ("division", "what tells of drives") else "right")
    cases: list[tuple[str, str, Any, Divide]] = [
        ("random", "–", frames, at_random),
        ("StratifiedGroupKFold", "–", frames, by_folds),
        ("natix without its drive rules", "–", frames, partial(by_natix, settings=OFF)),
        ("natix", "nothing but pixels", nameless(frames), by_natix),
        ("natix", "names with drive and frame", frames, by_natix),
        ("natix", "captured_at", nameless(frames), partial(by_natix, timed=True)),
        ("natix", "group", frames, partial(by_natix, use_group=True)),
    ]
    for name, told, variant, function in cases:
        right, leaked = [], []
        for seed in range(SEEDS):
            labels = stretch_labels(variant, seed)
            roles, _ = function(variant, labels, seed)
            train, test = np.flatnonzero(roles == 0), np.flatnonzero((roles == 3) & variant.filmed)
            if len(test):
                far = ((variant.pixels[test, None] - variant.pixels[train]) ** 2).sum(axis=2)
                right.append((labels[train][far.argmin(axis=1)] == labels[test]).mean())
                a = variant.neighbours
                pairs = np.concatenate([np.stack([a, a + 1], axis=1), np.stack([a + 1, a], axis=1)])
                leaks = pairs[(roles[pairs[:, 0]] == 3) & (roles[pairs[:, 1]] == 0), 0]
                leaked.append(len(np.unique(leaks)) / len(test))
        if len(right) < 2:
            table.add_row(name, told, "no TEST holds such frames", "–", "–")
            continue
        error = np.std(right, ddof=1) / np.sqrt(len(right))
        seeds = "" if len(right) == SEEDS else f" ({len(right)} seeds with such frames)"
        table.add_row(name, told, f"{np.mean(right):.3f}{seeds}", f"{error:.3f}", f"{np.mean(leaked):.0%}")
    return table


def main() -> None:
    frames = read()
    console = Console(width=140)
    console.print(one_drive(frames))
    console.print(stretches(frames))


if __name__ == "__main__":
    main()
