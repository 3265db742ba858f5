"""Temperature, threshold sweep and certification beside what a person would otherwise call, on the same arrays.

Logits are float32, as the pipeline stores them, and labels are drawn from them at temperature 1.7, so the right answer
is known. A peer gets the type that it needs, converted outside its timing. A temperature counts as correct when it is
within 1e-4 of `fit_temperature`'s, which `tests/decisions/test_oracles.py` checks against sklearn, torch and a scalar
search; the goals are stated against the fastest correct peer. Seconds are the best of three runs, of two for a million
rows and of one where a peer takes more than 20 s. Run: `make bench-decisions` (about five minutes on two cores).
"""

import argparse
import os
import platform
import time
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from mapie.risk_control import BinaryClassificationController
from rich.console import Console
from rich.table import Table
from scipy.special import expit, softmax
from sklearn.calibration import _TemperatureScaling
from sklearn.metrics import f1_score

from natix_lib.decisions import Certificate, certify_selection, fit_temperature, log_odds, sweep_thresholds
from natix_lib.decisions.band import staircase

ROWS = (10_000, 100_000, 1_000_000)
SPREAD = {2: 5.0, 13: 10.0, 1000: 25.0}  # of the logits: four of five predictions or more are right
LARGEST = {2: 1_000_000, 13: 1_000_000, 1000: 100_000}
TEMPERATURE, ALPHA, DELTA = 1.7, 0.05, 0.1
START = 0.5  # of the chain: not the best one
PATIENCE = 20.0  # seconds, above which a peer is not run again
GOALS = {"temperature": 4.0, "sweep": 8.0, "certification": 15.0}

Call = Callable[[], Any]


def draw(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 logits (n, C), and labels (n,) drawn from softmax(logits / 1.7) by the Gumbel trick, in blocks."""
    generator = np.random.default_rng(0)
    logits = np.empty((rows, classes), dtype=np.float32)
    labels = np.empty(rows, dtype=np.int64)
    step = max(1, 2_000_000 // classes)
    for start in range(0, rows, step):
        block = logits[start : start + step]
        block[:] = generator.standard_normal(block.shape, dtype=np.float32) * SPREAD[classes]
        labels[start : start + step] = (block / TEMPERATURE + generator.gumbel(size=block.shape)).argmax(axis=1)
    return logits, labels


def timed(call: Call, repeats: int) -> tuple[float, Any]:
    """Seconds of the best run, and what the call returned."""
    best, result = np.inf, None
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        best = min(best, seconds)
        if seconds > PATIENCE:
            break
    return best, result


def sklearn_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    return 1 / float(_TemperatureScaling().fit(logits, labels).beta_)


def torch_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """LBFGS with a strong-Wolfe line search on log T: the careful way to write it."""
    u = torch.zeros((), dtype=logits.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [u], max_iter=50, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits * torch.exp(-u), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(torch.exp(u.detach()))


def loop_of_17(logits: np.ndarray, labels: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Threshold, macro-F1 with the rejected missed, coverage and selective risk, recounted at each threshold."""
    probabilities = softmax(logits, axis=1)
    predicted, top = probabilities.argmax(axis=1), probabilities.max(axis=1)
    present = np.unique(labels)
    wrong = predicted != labels
    points = []
    for threshold in (0.10 + 0.05 * i for i in range(17)):
        accepted = top > threshold
        shown = np.where(accepted, predicted, -1)
        f1 = f1_score(labels, shown, labels=present, average="macro", zero_division=0)
        risk = wrong[accepted].mean() if accepted.any() else np.nan
        points.append((threshold, float(f1), float(accepted.mean()), float(risk)))
    return points


def mapie_selection(columns: np.ndarray, right: np.ndarray, fwer_method: str) -> float | None:
    """The threshold that MAPIE finds among its 100: precision of "s at least t" is 1 - selective risk."""
    controller = BinaryClassificationController(
        lambda values: values, "precision", 1 - ALPHA, confidence_level=1 - DELTA, fwer_method=fwer_method
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on a risk that is not monotone, and on nothing found
        threshold: float | None = controller.calibrate(columns, right).best_predict_param
    return threshold


def temperature_rows(logits: np.ndarray, labels: np.ndarray, repeats: int) -> tuple[list[list[str]], float]:
    """Rows of the table, and how many times as long as ours the fastest correct peer takes."""
    ours, fit = timed(lambda: fit_temperature(logits, labels), repeats)
    wide, y = logits.astype(np.float64), torch.from_numpy(labels)
    peers: dict[str, Call] = {
        "sklearn, float32": lambda: sklearn_temperature(logits, labels),
        "sklearn, float64": lambda: sklearn_temperature(wide, labels),
        "torch LBFGS on log T, float32": lambda: torch_temperature(torch.from_numpy(logits), y),
        "torch LBFGS on log T, float64": lambda: torch_temperature(torch.from_numpy(wide), y),
    }
    results = {name: timed(call, repeats) for name, call in peers.items()}
    correct = {
        name: seconds
        for name, (seconds, temperature) in results.items()
        if abs(temperature / fit.temperature - 1) <= 1e-4
    }
    fastest = min(correct, key=lambda name: correct[name])
    rows = [["temperature", "ours", f"{ours:.4f}", "1.0x", f"T = {fit.temperature:.7f}"]]
    for name, (seconds, temperature) in results.items():
        verdict = "" if name in correct else ", wrong"
        verdict = ", fastest correct" if name == fastest else verdict
        rows.append(["", name, f"{seconds:.4f}", f"{seconds / ours:.1f}x", f"T = {temperature:.7f}{verdict}"])
    return rows, correct[fastest] / ours


def sweep_rows(logits: np.ndarray, labels: np.ndarray, repeats: int) -> tuple[list[list[str]], float]:
    """Rows of the table, and how many times as long as the whole curve the loop takes."""
    ours, sweep = timed(lambda: sweep_thresholds(logits, labels), repeats)
    theirs, points = timed(lambda: loop_of_17(logits, labels), repeats)
    best = max(points, key=lambda point: point[1])
    thresholds = len(sweep.curve.accepted)
    return [
        ["sweep", f"ours, {thresholds:,} thresholds", f"{ours:.4f}", "1.0x", f"best F1 = {sweep.f1_score:.6f}"],
        ["", "sklearn, 17 thresholds", f"{theirs:.4f}", f"{theirs / ours:.1f}x", f"best F1 = {best[1]:.6f}"],
    ], theirs / ours


def fresh_certificate(scores: np.ndarray, errors: np.ndarray) -> Certificate:
    """Band and chain, the band's staircase computed anew as in a first call."""
    staircase.cache_clear()
    return certify_selection(scores, errors, ALPHA, DELTA, start=START)


def certification_rows(logits: np.ndarray, labels: np.ndarray, repeats: int) -> tuple[list[list[str]], float]:
    """Rows of the table, and how many times as long as ours the faster of MAPIE's corrections takes."""
    scores = log_odds(logits)
    right = logits.argmax(axis=1) == labels
    errors, top, y = ~right, expit(scores), right.astype(np.int64)
    columns = np.column_stack([1 - top, top])
    ours, certificate = timed(lambda: fresh_certificate(scores, errors), repeats)
    share = certificate.accepted / len(scores)
    rows = [["certification", "ours, band and chain", f"{ours:.4f}", "1.0x", f"accepts {share:.4f}"]]
    ratios = []
    for name, method in (("Holm, its default", "bonferroni_holm"), ("fixed sequence", "fixed_sequence")):
        seconds, threshold = timed(partial(mapie_selection, columns, y, method), repeats)
        accepted = 0.0 if threshold is None else float((top >= threshold).mean())
        ratios.append(seconds / ours)
        rows.append(["", f"MAPIE, {name}", f"{seconds:.4f}", f"{ratios[-1]:.1f}x", f"accepts {accepted:.4f}"])
    return rows, min(ratios)


def compare(rows: int, classes: int) -> tuple[Table, dict[str, float]]:
    """The table of one size, and the ratios that the goals are about."""
    logits, labels = draw(rows, classes)
    repeats = 2 if rows >= 1_000_000 else 3
    right = (logits.argmax(axis=1) == labels).mean()
    table = Table(title=f"{rows:,} rows, {classes:,} classes, {right:.3f} right", title_justify="left", width=104)
    table.add_column("")
    table.add_column("")
    table.add_column("seconds", justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("finds")
    ratios = {}
    measures = {"temperature": temperature_rows, "sweep": sweep_rows, "certification": certification_rows}
    for name, measure in measures.items():
        lines, ratios[name] = measure(logits, labels, repeats)
        for line in lines:
            table.add_row(*line, end_section=line is lines[-1])
    return table, ratios


def certify_logits(logits: np.ndarray, labels: np.ndarray) -> None:
    """Certification with the scores that it needs, for the memory of both."""
    fresh_certificate(log_odds(logits), logits.argmax(axis=1) != labels)


def memory(rows: int, classes: int) -> tuple[Table, float]:
    """The peak of each function as a multiple of the logits' bytes, and the largest with the logits counted."""
    logits, labels = draw(rows, classes)
    table = Table(title=f"peak memory at {rows:,} rows, {classes} classes", title_justify="left")
    table.add_column("")
    table.add_column("beyond the logits", justify="right")
    table.add_column("with the logits", justify="right")
    peaks = []
    functions: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
        "temperature": fit_temperature,
        "sweep, with its curve": sweep_thresholds,
        "certification, with its scores": certify_logits,
    }
    for name, function in functions.items():
        tracemalloc.start()
        function(logits, labels)
        peaks.append(tracemalloc.get_traced_memory()[1] / logits.nbytes)
        tracemalloc.stop()
        table.add_row(name, f"{peaks[-1]:.2f}x", f"{1 + peaks[-1]:.2f}x")
    return table, 1 + max(peaks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=max(ROWS), help="largest number of rows, at least 10000")
    limit = parser.parse_args().rows
    sizes = [n for n in ROWS if n <= limit]
    if not sizes:
        parser.error(f"--rows must be at least {min(ROWS)}, got {limit}")
    console = Console(width=104)
    console.print(
        f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, numpy {np.__version__}, "
        f"torch {torch.__version__}",
        highlight=False,
    )
    console.print(
        f"Labels drawn at T = {TEMPERATURE}; certified at alpha {ALPHA}, delta {DELTA}. Certification starts from "
        "scores on both sides. MAPIE accepts s >= one of its default 100 thresholds; both corrections cost the same, "
        "as its time goes into recounting; Holm is valid always, the fixed sequence takes its direction from the data.",
        highlight=False,
    )
    compare(2_000, 13)  # warm-up
    ratios: dict[str, float] = {}
    for classes, largest in LARGEST.items():
        for rows in (n for n in sizes if n <= largest):
            table, times_ours = compare(rows, classes)
            console.print(table, highlight=False)
            ratios = times_ours if classes == 13 else ratios
    table, peak = memory(sizes[-1], 13)
    console.print(table, highlight=False)
    console.print(f"At {sizes[-1]:,} rows and 13 classes, peers take as many times as long as ours:", highlight=False)
    peers = {"temperature": "fastest correct peer", "sweep": "loop of 17", "certification": "faster MAPIE"}
    for name, goal in GOALS.items():
        verdict = "met" if ratios[name] >= goal else "MISSED"
        console.print(f"  {name}, {peers[name]}: {ratios[name]:.1f}x (goal {goal:.0f}x, {verdict})", highlight=False)
    verdict = "met" if peak < 3 else "MISSED"
    console.print(f"  largest peak memory: {peak:.2f}x the logits (goal below 3x, {verdict})", highlight=False)


if __name__ == "__main__":
    main()
