"""What the accept rule accepts beside what could be: mean coverage and the share of trials that certify anything.

    python -m benchmarks.power [--trials 400]

Nine laws of risk against confidence, alpha .05, delta .1; coverage counts 0 where nothing is certified, and is the true
coverage of the threshold. `oracle` knows the law; `best start` is one chain with the whole of delta from the start, out
of 40, that is best on average for that law and size, which no rule can know; `D` has VAL_SELECT of the same size, `D,
too good` a VAL_SELECT a third of whose errors are missing, as of images that early stopping has seen; `B` has none;
`ltt` is four chains of a quarter of delta each, what went before; MAPIE's are its BinaryClassificationController.
"""

import argparse
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
from mapie.risk_control import BinaryClassificationController
from rich.console import Console
from rich.table import Table
from scipy.special import expit, softmax

from natix_lib.decisions import best_start, certify_selection
from natix_lib.decisions.band import chain
from natix_lib.decisions.binomial import least_accepted, most_errors
from natix_lib.decisions.curve import Ranking, rank

ALPHA, DELTA = 0.05, 0.1
POOL = 200_000
SIZES = (100, 300, 1000, 3000, 10_000)
MAPIE_UP_TO = 10_000
STARTS = np.geomspace(0.01, 1, 40)

Rule = Callable[[Ranking, float], float]
"""From the ranking of n rows and a start found on VAL_SELECT to the accepted share of the n."""


def softmax_law(classes: int, spread: float, seed: int) -> np.ndarray:
    """Chance that the argmax of drawn logits is wrong when labels follow their softmax, most confident first."""
    logits = np.random.default_rng(seed).normal(0, spread, (POOL, classes))
    law: np.ndarray = np.sort(1 - softmax(logits, axis=1).max(axis=1))
    return law


def binary_law(wrong: float, slope: float) -> np.ndarray:
    """Two classes whose log-odds are spread so that so many are wrong in all."""
    margin = np.sort(np.abs(np.random.default_rng(3).normal(0, slope, POOL)))[::-1]
    law: np.ndarray = expit(-margin)
    return law * min(1.0, float(wrong / law.mean()))


@cache
def laws() -> dict[str, np.ndarray]:
    """Chance of an error at each place of the ranking, most confident first, (POOL,)."""
    place = np.linspace(0, 1, POOL)
    noisy = softmax_law(13, 4.0, 5)
    noisy[: POOL // 80] = 0.5
    return {
        "13 classes, hard": softmax_law(13, 3.0, 0),
        "2 classes, 8 % wrong": binary_law(0.08, 3.0),
        "2 classes, 25 % wrong": binary_law(0.25, 1.3),
        "13 classes": softmax_law(13, 5.0, 1),
        "noise at the top": noisy,
        "constant .03": np.full(POOL, 0.03),
        "13 classes, good": softmax_law(13, 12.0, 2),
        "not monotone": 0.02 + 0.13 * ((place > 0.1) & (place < 0.2)) + 0.3 * (place > 0.7),
        "steep": np.where(place < 0.45, 0.002, 0.4),
    }


def draw(law: np.ndarray, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores, higher for earlier places, and errors of n rows."""
    places = generator.integers(0, len(law), n)
    return -places - generator.random(n), generator.random(n) < law[places]


def true_coverage(threshold: float | None) -> float:
    """Of the pool; scores are negated places."""
    return 0.0 if threshold is None else float(np.clip(-threshold / POOL, 0, 1))


def ltt(ranking: Ranking) -> float | None:
    """Four chains of a quarter of delta over all ranks, from the fewest that can pass, n/8, n/4 and n/2."""
    n, best = int(ranking.ends[-1]), -1
    for start in (least_accepted(ALPHA, DELTA / 4), n // 8, n // 4, n // 2):
        index = int(np.searchsorted(ranking.ends, max(start, 1)))
        while index < len(ranking.ends):
            allowed = most_errors(int(ranking.ends[index]), ALPHA, DELTA / 4)
            if ranking.errors[index] > allowed:
                break
            index = int(np.searchsorted(ranking.errors, allowed, side="right"))
            best = max(best, index - 1)
    return float(ranking.thresholds[best]) if best >= 0 else None


def one_chain(ranking: Ranking, start: float) -> float | None:
    index = chain(ranking, ALPHA, DELTA, max(1, round(start * int(ranking.ends[-1]))))
    return None if index is None else float(ranking.thresholds[index])


def mapie(scores: np.ndarray, errors: np.ndarray, method: str) -> float | None:
    """Its threshold among 100; its scores are probabilities."""
    probabilities = 1 + scores / (POOL + 1)
    controller = BinaryClassificationController(
        lambda values: values, "precision", 1 - ALPHA, confidence_level=1 - DELTA, fwer_method=method
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on a risk that is not monotone, and on nothing found
        columns = np.stack([1 - probabilities, probabilities], 1)
        found = controller.calibrate(columns, (~errors).astype(int)).best_predict_param
    return None if found is None else float((found - 1) * (POOL + 1))


def best_coverage(law: np.ndarray) -> float:
    """The most that can be accepted at a true risk of alpha."""
    allowed = np.flatnonzero(np.cumsum(law) / np.arange(1, POOL + 1) <= ALPHA)
    return float((allowed[-1] + 1) / POOL) if len(allowed) else 0.0


def trial(law: np.ndarray, n: int, seed: int, with_mapie: bool) -> dict[str, list[float]]:
    """True coverage of each rule's threshold in one trial; of the chain, from each of STARTS."""
    generator = np.random.default_rng([n, seed])
    scores, errors = draw(law, n, generator)
    select_scores, select_errors = draw(law, n, generator)
    ranking = rank(scores, errors)
    kept = select_errors & (generator.random(n) > 1 / 3)
    starts = [best_start(select_scores, e, ALPHA, DELTA, n) for e in (select_errors, kept)]
    found: dict[str, list[float | None]] = {
        "best start": [one_chain(ranking, start) for start in STARTS],
        "D": [certify_selection(scores, errors, ALPHA, DELTA, start=starts[0]).threshold],
        "D, too good": [certify_selection(scores, errors, ALPHA, DELTA, start=starts[1]).threshold],
        "B": [certify_selection(scores, errors, ALPHA, DELTA).threshold],
        "ltt": [ltt(ranking)],
    }
    if with_mapie:
        found["MAPIE, fixed sequence"] = [mapie(scores, errors, "fixed_sequence")]
        found["MAPIE, Bonferroni-Holm"] = [mapie(scores, errors, "bonferroni_holm")]
    return {name: [true_coverage(t) for t in thresholds] for name, thresholds in found.items()}


def main() -> None:
    """Print the mean over the nine laws, and each law at n = 1,000."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--mapie", type=int, default=40, help="trials that MAPIE takes part in")
    arguments = parser.parse_args()
    console = Console(width=150)
    means: dict[int, dict[str, list[float]]] = {}
    for n in SIZES:
        table = Table(title=f"n = {n:,}: mean coverage (share of the trials certified)")
        table.add_column("law")
        rows = []
        for name, law in laws().items():
            trials = [trial(law, n, seed, seed < arguments.mapie) for seed in range(arguments.trials)]
            cells = {"oracle": (best_coverage(law), 1.0)}
            for rule in trials[0]:
                coverage = np.array([each[rule] for each in trials if rule in each])
                best = coverage[:, coverage.mean(axis=0).argmax()]
                cells[rule] = (float(best.mean()), float((best > 0).mean()))
            rows.append((name, cells))
            for rule, (mean, _) in cells.items():
                means.setdefault(n, {}).setdefault(rule, []).append(mean)
        for rule in rows[0][1]:
            table.add_column(rule, justify="right")
        for name, cells in rows:
            table.add_row(name, *(f"{mean:.3f} ({share:.2f})" for mean, share in cells.values()))
        console.print(table)
    table = Table(title="mean over the nine laws")
    table.add_column("rule")
    for n in SIZES:
        table.add_column(f"n = {n:,}", justify="right")
    for rule in means[SIZES[0]]:
        table.add_row(rule, *(f"{np.mean(means[n][rule]):.3f}" for n in SIZES))
    table.add_row("D / best start", *(f"{np.mean(means[n]['D']) / np.mean(means[n]['best start']):.3f}" for n in SIZES))
    console.print(table)


if __name__ == "__main__":
    main()
