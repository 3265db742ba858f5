"""Assignment of whole groups to roles beside scikit-learn's StratifiedGroupKFold and an exact solver with time.

Structures are drawn by four laws of group sizes (even, Pareto, three cities among drives, a rare class) and with two,
five and thirteen classes; with NATIX_TEST_DATA the groups of `roadwork-real` are one more. A structure is solvable
where the solver, HiGHS, finds a division with every class in every role in its time; the others are counted. The error
is |share of a class in a role - ratio of the role|, averaged over classes and roles, here; the solver minimises it, and
stops at 2 % from what it knows to be possible or at its time. StratifiedGroupKFold makes 20 folds, of which 12, 2, 3
and 3 are the roles. A tight case is drawn so that a division exists which barely has the minimum of every class in
every role; a peer refuses it where its division lacks an image. Run: `python -m benchmarks.assignment`.
"""

import argparse
import itertools
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import StratifiedGroupKFold

from natix_lib.data.exact import SECONDS, Question, fewest_lacking, nearest
from natix_lib.data.partition import Groups, assign
from natix_lib.errors import DataError

RATIOS = np.array([0.6, 0.1, 0.15, 0.15])
FOLDS = np.repeat(np.arange(4), (12, 2, 3, 3))
LAWS = ("even", "pareto", "cities", "rare class")
Divide = Callable[[np.ndarray, int], np.ndarray | None]


def structure(seed: int) -> tuple[str, np.ndarray]:
    """A law and images of each group and class, (G, C)."""
    generator = np.random.default_rng(seed)
    law, classes = LAWS[seed % 4], (2, 2, 5, 13)[seed // 4 % 4]
    groups = max(int(generator.integers(12, 61)), 12 if classes == 2 else 30)
    sizes = generator.integers(5, 60, groups)
    if law == "even":
        sizes = generator.integers(1, 13, groups)
    elif law == "pareto":
        sizes = np.ceil(3 * (1 + generator.pareto(1.2, groups))).astype(np.int64).clip(max=2000)
    elif law == "cities":
        sizes[:3] = 3000, 1500, 800
    shares = generator.dirichlet(np.full(classes, 0.6), groups)
    if law == "rare class":
        shares[:, -1] *= 0.1
        shares /= shares.sum(axis=1, keepdims=True)
    return law, np.stack([generator.multinomial(size, share) for size, share in zip(sizes, shares, strict=True)])


def tight(seed: int, more: float = 0.0) -> tuple[np.ndarray, int]:
    """Images of each group and class, (G, C), and a minimum that a hidden division meets.

    Args:
        seed: Draws them.
        more: Share of groups and classes that get up to four images more; without these it just meets it.
    """
    generator = np.random.default_rng(seed)
    groups, classes, least = (int(generator.integers(*span)) for span in ((8, 20), (2, 8), (1, 4)))
    roles = np.append(np.arange(4).repeat(2), generator.integers(0, 4, groups - 8))
    counts = np.zeros((groups, classes), dtype=np.int64)
    for role, c in itertools.product(range(4), range(classes)):
        for _ in range(least):
            counts[generator.choice(np.flatnonzero(roles == role)), c] += 1
    if more:
        counts += (generator.random(counts.shape) < more) * generator.integers(0, 5, counts.shape)
    counts[counts.sum(axis=1) == 0, 0] = 1
    return counts[generator.permutation(groups)], least


def real() -> list[tuple[str, np.ndarray]]:
    """The groups of roadwork-real, where it is at hand."""
    import csv

    manifest = Path(os.environ.get("NATIX_TEST_DATA", "../shared/data")) / "roadwork-real" / "manifest.csv"
    if not manifest.exists():
        return []
    rows = list(csv.DictReader(manifest.read_text().splitlines()))
    labels, groups = (np.unique([row[name] for row in rows], return_inverse=True)[1] for name in ("label", "group"))
    counts = np.zeros((groups.max() + 1, labels.max() + 1), dtype=np.int64)
    np.add.at(counts, (groups, labels), 1)
    return [("roadwork-real", counts)]


def natix(counts: np.ndarray, least: int) -> np.ndarray | None:
    none = np.full(len(counts), -1)
    groups = Groups([f"{group:06d}" for group in range(len(counts))], counts, 0 * counts, none, none)
    try:
        return assign(groups, RATIOS, least, 0, [f"{c:03d}" for c in range(counts.shape[1])])
    except DataError:
        return None


def folds(counts: np.ndarray, least: int) -> np.ndarray | None:
    """StratifiedGroupKFold; its division stands whether or not it lacks a class."""
    group, label = np.nonzero(counts)
    images = counts[group, label]
    groups, labels = np.repeat(group, images), np.repeat(label, images)
    roles = np.zeros(len(counts), dtype=np.int64)
    splitter = StratifiedGroupKFold(len(FOLDS), shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer images than folds
        try:
            for role, (_, chosen) in zip(FOLDS, splitter.split(labels, labels, groups), strict=True):
                roles[np.unique(groups[chosen])] = role
        except ValueError:  # every class has fewer images than there are folds
            return None
    return roles


def solver(counts: np.ndarray, least: int) -> np.ndarray | None:
    total = counts.sum(axis=0)
    nothing = np.zeros((4, counts.shape[1]), dtype=np.int64)
    question = Question(
        counts, np.stack([counts] * 4), nothing, nothing, RATIOS[:, None] * total, 1 / np.maximum(total, 1), least
    )
    return nearest(question, np.zeros(len(counts)), nodes=10**9, seconds=SECONDS)


METHODS: dict[str, Divide] = {"natix": natix, "StratifiedGroupKFold": folds, f"HiGHS, {SECONDS:g} s": solver}
OURS, PEER, EXACT = METHODS


def held(counts: np.ndarray, roles: np.ndarray) -> np.ndarray:
    """Images of each role and class, (4, C)."""
    return np.stack([counts[roles == role].sum(axis=0) for role in range(4)])


def timed(divide: Divide, counts: np.ndarray, least: int) -> tuple[np.ndarray | None, float]:
    start = time.process_time()
    roles = divide(counts, least)
    return roles, time.process_time() - start


def structures(console: Console, wanted: int) -> None:
    each = Table(title="error of each structure")
    for column in ("structure", "groups", "classes", *METHODS, "natix / HiGHS", "HiGHS, CPU s"):
        each.add_column(column, justify="left" if column == "structure" else "right")
    errors: dict[str, list[float]] = {name: [] for name in METHODS}
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    empty, refused, unsolved, ratios = dict.fromkeys(METHODS, 0), dict.fromkeys(METHODS, 0), 0, []
    drawn = (structure(seed) for seed in itertools.count())
    for law, counts in itertools.chain(real(), drawn):
        if len(errors[EXACT]) == wanted:
            break
        answers = {name: timed(divide, counts, 1) for name, divide in METHODS.items()}
        if answers[EXACT][0] is None:
            unsolved += 1
            continue
        cells = []
        for name, (roles, taken) in answers.items():
            seconds[name].append(taken)
            if roles is None:
                refused[name] += 1
                cells.append("refused")
                continue
            by_role = held(counts, roles)
            errors[name].append(float(np.abs(by_role / counts.sum(axis=0) - RATIOS[:, None]).mean()))
            empty[name] += bool((by_role == 0).any())
            cells.append(f"{errors[name][-1]:.4f}")
        if answers[OURS][0] is not None:
            ratios.append(errors[OURS][-1] / errors[EXACT][-1])
        taken = answers[EXACT][1]
        each.add_row(law, *map(str, counts.shape), *cells, f"{ratios[-1]:.2f}", f"{taken:.1f}")
    console.print(each)
    table = Table(title=f"{wanted} solvable structures ({unsolved} more without a division in {SECONDS:g} s)")
    for column in ("", "median error", "worst error", "with an empty class", "refused", "CPU s, median", "CPU s, most"):
        table.add_column(column, justify="left" if not column else "right")
    for name in METHODS:
        table.add_row(
            name, f"{np.median(errors[name]):.4f}", f"{max(errors[name]):.4f}", str(empty[name]), str(refused[name]),
            f"{np.median(seconds[name]):.2f}", f"{max(seconds[name]):.2f}",
        )  # fmt: skip
    console.print(table)
    console.print(f"natix / HiGHS: median {np.median(ratios):.2f}, worst {max(ratios):.2f}")


def tight_cases(console: Console, cases: int) -> None:
    table = Table(title=f"{cases} tight cases, all feasible")
    for column in ("", "refused", "CPU s"):
        table.add_column(column, justify="left" if not column else "right")

    def exact(counts: np.ndarray, least: int) -> np.ndarray | None:
        return fewest_lacking(np.stack([counts] * 4), 0 * counts[:4], least).roles

    for name, divide in ((OURS, natix), (PEER, folds), (EXACT, exact)):
        refused, seconds = 0, 0.0
        for seed in range(cases):
            counts, least = tight(seed)
            roles, taken = timed(divide, counts, least)
            refused += roles is None or bool((held(counts, roles) < least).any())
            seconds += taken
        table.add_row(name, str(refused), f"{seconds:.1f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=28)
    parser.add_argument("--tight", type=int, default=100)
    arguments = parser.parse_args()
    console = Console()
    structures(console, arguments.structures)
    tight_cases(console, arguments.tight)


if __name__ == "__main__":
    main()
