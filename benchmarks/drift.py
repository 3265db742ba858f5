"""Drift without labels: false alarms and delays of natix, crepes and MAPIE on the same streams, at a level of .01.

Two classes are two unit normals, `signal` apart; the log-odds are exact for a signal of 2. Shifts: less signal, and an
over-confident camera, whose log-odds are 1.6 times as steep though its errors stay. Peers get the same log-odds. What
they publish is the p-value of an image among all before it and the simple jumper, which are called as they are, from
the first image of the stream on; how to watch a stream without labels is left to their users. `crepes, reference alone`
ranks among the reference and not the stream, as for prediction sets. Delays count images from the shift to the alarm; a
stream in which there is none within FOLLOWED counts as infinite. Run: `make bench-drift`.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from crepes.martingales import SimpleJumper, semi_online_p_values
from mapie.exchangeability_testing import OnlineMartingaleTest
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from natix_lib.decisions.drift import LEVEL, Drift, reference_of
from natix_lib.decisions.score import predictions_and_log_odds

Values = NDArray[np.float64]
FOLLOWED = 5_000  # images after a shift
ACCEPTED_RISK = 0.04  # of a policy on the unshifted images, for the risk after the shift


@dataclass(frozen=True)
class Shift:
    """What changes: how far apart the classes are, and how steep the log-odds."""

    name: str
    signal: float = 2.0
    steep: float = 1.0


SHIFTS = (Shift("signal 2.0 to 1.4", 1.4), Shift("over-confident camera", 2.0, 1.6), Shift("signal 2.0 to 1.7", 1.7))


def drawn(n: int, generator: np.random.Generator, shift: Shift) -> tuple[Values, NDArray[np.int64]]:
    """Logits (n, 2) and labels."""
    labels = generator.integers(0, 2, n)
    x = shift.steep * 2 * ((2 * labels - 1) * shift.signal / 2 + generator.normal(size=n))
    return np.column_stack([-x / 2, x / 2]), labels


def natix(reference: Values, stream: Values, seed: int) -> int:
    """After how many images of the stream the alarm goes on; its length for never. All detectors are so."""
    test = Drift(reference_of(reference), seed)
    for prediction, log_odds in zip(*(each.tolist() for each in predictions_and_log_odds(stream)), strict=True):
        test.observe(log_odds, prediction)
        if test.alarm:
            return test.alarmed_after
    return len(stream)


def crepes(reference: Values, stream: Values, seed: int) -> int:
    scores = predictions_and_log_odds(np.concatenate([reference, stream]))[1]
    p_values = semi_online_p_values(scores, seed=seed)[len(reference) :]
    return int(SimpleJumper().apply(p_values, c=1 / LEVEL))


def crepes_reference_alone(reference: Values, stream: Values, seed: int) -> int:
    known = np.sort(predictions_and_log_odds(reference)[1])
    scores = predictions_and_log_odds(stream)[1]
    above = len(known) - np.searchsorted(known, scores, side="right")
    p_values = (above + np.random.default_rng(seed).random(len(scores))) / (len(known) + 1)
    return int(SimpleJumper().apply(p_values, c=1 / LEVEL))


def mapie(reference: Values, stream: Values, seed: int) -> int:
    test = OnlineMartingaleTest(test_level=LEVEL, warn=False, random_state=seed)
    scores = predictions_and_log_odds(np.concatenate([reference, stream]))[1]
    for i in range(len(reference), len(scores)):
        if test.update_simple_jumper_martingale(test.compute_p_value(scores[i], scores[:i])) >= 1 / LEVEL:
            return i + 1 - len(reference)
    return len(stream)


DETECTORS: dict[str, Callable[[Values, Values, int], int]] = {
    "natix": natix,
    "crepes": crepes,
    "MAPIE": mapie,
    "crepes, reference alone": crepes_reference_alone,
}


def false_alarms(sizes: list[int], streams: int, images: int) -> Table:
    table = Table(title=f"Share of {streams} streams of {images} images without a shift in which there is an alarm")
    for column in ("n", *DETECTORS):
        table.add_column(column, justify="right")
    for n in sizes:
        counts = dict.fromkeys(DETECTORS, 0)
        for seed in range(streams):
            generator = np.random.default_rng([n, seed])
            reference, stream = (drawn(rows, generator, Shift("none"))[0] for rows in (n, images))
            for name, detect in DETECTORS.items():
                counts[name] += detect(reference, stream, seed) < images
        table.add_row(f"{n}", *(f"{count / streams:.3f}" for count in counts.values()))
    return table


def delay(n: int, shift: Shift, quiet: int, streams: int, detect: Callable[[Values, Values, int], int]) -> str:
    after = []
    for seed in range(streams):
        generator = np.random.default_rng([n, seed])
        reference = drawn(n, generator, Shift("none"))[0]
        stream = np.concatenate([drawn(quiet, generator, Shift("none"))[0], drawn(FOLLOWED, generator, shift)[0]])
        found = detect(reference, stream, seed)
        if found > quiet:  # a false alarm before it is no delay
            after.append(np.inf if found == len(stream) else found - quiet)
    low, middle, high = np.quantile(after, [0.1, 0.5, 0.9], method="inverted_cdf")
    return f"{middle:.0f} ({low:.0f}-{high:.0f})"


def delays(sizes: list[int], quiet: list[int], streams: int) -> Table:
    table = Table(
        title=f"Images from the shift to the alarm: median (10-90 %) of {streams} streams; inf: none in {FOLLOWED}"
    )
    for column in ("shift", "risk after", "quiet before", "n", *DETECTORS):
        table.add_column(column, justify="right")
    for shift in SHIFTS:
        for before in quiet:
            for n in sizes:
                cells = [delay(n, shift, before, streams, detect) for detect in DETECTORS.values()]
                table.add_row(shift.name, f"{risk_after(shift):.3f}", f"{before}", f"{n}", *cells)
    return table


def risk_after(shift: Shift) -> float:
    """The risk of the accepted after a shift, of the threshold that has ACCEPTED_RISK before it."""
    generator = np.random.default_rng(0)
    errors, scores = [], []
    for each in (Shift("none"), shift):
        logits, labels = drawn(400_000, generator, each)
        prediction, log_odds = predictions_and_log_odds(logits)
        errors.append(prediction != labels)
        scores.append(log_odds)
    order = np.argsort(-scores[0])
    risk = np.cumsum(errors[0][order]) / np.arange(1, len(order) + 1)
    threshold = scores[0][order][np.flatnonzero(risk <= ACCEPTED_RISK)[-1]]
    return float(errors[1][scores[1] > threshold].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=100, help="streams without a shift")
    parser.add_argument("--images", type=int, default=20_000, help="images of each of them")
    parser.add_argument("--shifted", type=int, default=40, help="streams of each shift")
    options = parser.parse_args()
    console = Console(width=150)
    console.print(delays([300, 1_000, 3_000, 10_000], [0, 5_000], options.shifted))
    console.print(false_alarms([300, 1_000, 3_000], options.streams, options.images))


if __name__ == "__main__":
    main()
