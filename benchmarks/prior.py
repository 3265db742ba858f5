"""What class weights do to decisions, and how well the ways to take them back do, beside a model without weights.

Two experiments. Simulated: 3 % positives, log-odds exact but for the shift of balanced weights and a factor, so that
they are too steep or too flat as networks are. Real: trucks among CIFAR-10, a tenth of the images; random features of
the pixels and natix's own head, trained by natix's own loop once with balanced weights and once without. A correction
is fitted on n rows of VAL_SELECT; then a temperature and a certified accept rule on VAL_CALIB; the figures are of other
rows, means over trials. `no weights` is the goal: the exact log-odds, or the head that was trained without weights.

A third, of `scrc.prior`: a model that was trained and labelled with 25 % positives serves where 3 % are, and one of 5 %
where 30 % are. The bias is of VAL_SELECT, temperature and rule of VAL_CALIB's rows drawn as in use; `as in the data`
has neither. The share of trials in which what is certified is false in use is counted too.
Data: NATIX_TEST_DATA. Run: `make bench-prior`.
"""

import argparse
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from natix_lib.config import Training
from natix_lib.decisions import certify_selection, fit_temperature
from natix_lib.decisions.calibration import Rows as Deployed
from natix_lib.decisions.deployment import drawn_at_prior, fit_deployment
from natix_lib.decisions.draws import MISFIT
from natix_lib.decisions.metrics import classwise_ece
from natix_lib.decisions.prior import fit_prior_shift
from natix_lib.decisions.score import predictions_and_log_odds, softmax
from natix_lib.training.classifier import Head
from natix_lib.training.fit import Objective, class_weights, fit
from natix_lib.training.watch import Figures, figures

DATA = Path(os.environ.get("NATIX_TEST_DATA", "../shared/data"))
SELECT, CALIB = (300, 2_000), 3_000
SHARE, DISTANCE, FACTORS = 0.03, 2.0, (1.0, 2.5, 0.5)
TRUCK, TRAIN, CHOICE, FEATURES = 9, 12_000, 1_000, 1_024
Values = NDArray[np.float64]
Correction = Callable[[Values, NDArray[np.int64], Values], Values]


def nll(logits: Values, labels: NDArray[np.int64]) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def temperature_alone(logits: Values, labels: NDArray[np.int64], weights: Values) -> Values:
    """One number, the temperature: what theory says of an ideal network."""

    def loss(log_slope: float) -> float:
        return nll(np.exp(log_slope) * logits - np.log(weights), labels)

    return np.asarray(-np.log(weights) / np.exp(minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded").x))


def free_biases(logits: Values, labels: NDArray[np.int64], weights: Values) -> Values:
    """A bias for each class, no temperature."""
    analytic = -np.log(weights / weights[0])[1:]

    def loss(point: Values) -> float:
        return nll(logits + np.append(0.0, point), labels)

    return np.append(0.0, minimize(loss, analytic, method="L-BFGS-B", bounds=[(-30.0, 30.0)] * len(analytic)).x)


CORRECTIONS: dict[str, Correction] = {
    "as trained": lambda logits, labels, weights: np.zeros(len(weights)),
    "s = 1": lambda logits, labels, weights: -np.log(weights),
    "s = T": temperature_alone,
    "natix: s and T": lambda logits, labels, weights: fit_prior_shift(logits, labels, weights).shift,
    "bias of each class": free_biases,
}


@dataclass(frozen=True)
class Rows:
    """Logits (n, C) of the model with weights and of the one without, and labels (n,)."""

    weighted: Values
    natural: Values
    labels: NDArray[np.int64]

    def __getitem__(self, rows: Any) -> "Rows":
        return Rows(self.weighted[rows], self.natural[rows], self.labels[rows])


def trial(parts: tuple[Rows, Rows, Rows], weights: Values, alphas: tuple[float, float]) -> dict[str, list[float]]:
    """Of each correction NLL, classwise ECE, mean p(positive), and coverage certified at each alpha."""
    select, calib, test = parts
    figures = {}
    for name, correction in CORRECTIONS.items():
        shift = correction(select.weighted, select.labels, weights)
        figures[name] = judged(calib.weighted + shift, calib.labels, test.weighted + shift, test.labels, alphas)
    figures["no weights"] = judged(calib.natural, calib.labels, test.natural, test.labels, alphas)
    return figures


def judged(
    calib: Values, calib_labels: NDArray[np.int64], test: Values, labels: NDArray[np.int64], alphas: tuple[float, float]
) -> list[float]:
    temperature = fit_temperature(calib, calib_labels).temperature
    probabilities = softmax(test, temperature)
    figures = [nll(test / temperature, labels), classwise_ece(probabilities, labels), float(probabilities[:, 1].mean())]
    predicted, scores = predictions_and_log_odds(calib)
    tested = predictions_and_log_odds(test)[1]
    for alpha in alphas:
        certificate = certify_selection(scores, predicted != calib_labels, alpha, 0.1)
        accepted = tested > certificate.threshold if certificate.threshold is not None else np.zeros(1)
        figures.append(float(accepted.mean()))
    return figures


def simulated(factor: float, n: int, generator: np.random.Generator) -> tuple[Rows, Rows, Rows]:
    """VAL_SELECT, VAL_CALIB and TEST of normal classes, whose log-odds are known."""

    def draw(rows: int) -> Rows:
        labels = (generator.random(rows) < SHARE).astype(np.int64)
        ratio = generator.normal((labels - 0.5) * DISTANCE**2, DISTANCE)
        ratios = np.stack([np.zeros(rows), ratio], axis=1)
        return Rows(factor * ratios, factor * (ratios + np.log([1 - SHARE, SHARE])), labels)

    return draw(n), draw(CALIB), draw(20_000)


def trucks(seed: int) -> tuple[Rows, Values]:
    """Logits of two heads on random features of CIFAR-10, of images that neither was trained on; and the weights."""
    rows = [
        row for split in ("train", "test") for row in pq.read_table(DATA / f"cifar10-part/{split}.parquet").to_pylist()
    ]
    generator = np.random.default_rng(seed)
    rows = [rows[row] for row in generator.permutation(len(rows))]
    small = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").reduce(2) for row in rows]
    pixels = np.stack([np.asarray(image, dtype=np.float32).ravel() / 255 for image in small])
    pixels -= pixels[:TRAIN].mean(axis=0)
    values, directions = np.linalg.eigh(np.cov(pixels[:TRAIN].T))
    whitened = pixels @ directions[:, -192:] / np.sqrt(values[-192:])
    random = generator.normal(0, 192**-0.5, (192, FEATURES)).astype(np.float32)
    features = torch.from_numpy(np.maximum(whitened @ random - 0.25, 0).astype(np.float32))
    labels = torch.tensor([int(row["label"] == TRUCK) for row in rows])
    logits = {rule: trained(features, labels, rule) for rule in ("balanced", "none")}
    weights = class_weights(labels[:TRAIN], 2, "balanced")
    assert weights is not None
    rest = slice(TRAIN + CHOICE, None)
    both = Rows(logits["balanced"][rest], logits["none"][rest], labels.numpy()[rest])
    return both, weights.double().numpy()


def trained(features: torch.Tensor, labels: torch.Tensor, rule: str) -> Values:
    """Logits of all images by a head that was trained on the first, its epoch chosen on the next."""
    torch.manual_seed(0)
    head = Head(features.shape[1], 2, "linear", 0.0)
    head.standardise(features[:TRAIN])
    choice = slice(TRAIN, TRAIN + CHOICE)

    def batches(epoch: int, start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.randperm(TRAIN, generator=torch.Generator().manual_seed(epoch))
        return ((features[rows], labels[rows]) for rows in torch.split(order, 64)[start:])

    def score() -> Figures:
        with torch.no_grad():
            return figures(head(features[choice]), labels[choice])

    objective = Objective(batches, -(-TRAIN // 64), class_weights(labels[:TRAIN], 2, rule), score)
    fit(head, objective, Training(epochs=20), 0.999)
    with torch.no_grad():
        values: Values = head(features).double().numpy()
    return values


def served(
    shares: tuple[float, float], factor: float, n: int, generator: np.random.Generator
) -> dict[str, list[float]]:
    """Of each bias NLL, classwise ECE, mean p(positive) and coverage certified in use, and whether that is false."""
    share, use = shares
    prior = np.array([1 - use, use])

    def draw(rows: int, positives: float) -> tuple[Values, NDArray[np.int64]]:
        labels = (generator.random(rows) < positives).astype(np.int64)
        ratio = generator.normal((labels - 0.5) * DISTANCE**2, DISTANCE)
        return factor * (np.stack([np.zeros(rows), ratio], axis=1) + np.log([1 - share, share])), labels

    select, calib, (test, truth) = draw(n, share), draw(CALIB, share), draw(20_000, use)
    deployment = fit_deployment({"positive": use}, ("negative", "positive"), Deployed(*select))
    drawn = drawn_at_prior(Deployed(*calib), ("negative", "positive"), deployment, "VAL_CALIB")
    ratio = np.log(prior / deployment.shares)
    figures = {"as in the data": in_use(*calib, test, truth)}
    for name, bias in (
        ("log(prior / share)", ratio),
        ("natix: scrc.prior", deployment.bias),
        ("exact log-odds", factor * np.log(prior / [1 - share, share])),
    ):
        figures[name] = in_use(calib[0][drawn] + bias, calib[1][drawn], test + bias, truth)
    return figures


def in_use(calib: Values, calib_labels: NDArray[np.int64], test: Values, labels: NDArray[np.int64]) -> list[float]:
    predicted, scores = predictions_and_log_odds(test)
    called, tested = predictions_and_log_odds(calib)
    threshold = certify_selection(tested, called != calib_labels, 0.02, 0.1 * (1 - MISFIT)).threshold
    accepted = scores > (np.inf if threshold is None else threshold)
    risk = (predicted != labels)[accepted].mean() if accepted.any() else 0.0
    figures = judged(calib, calib_labels, test, labels, (0.01, 0.02))
    return [*figures, float(risk > 0.02)]


def show(
    title: str, figures: list[dict[str, list[float]]], alphas: tuple[float, float], more: tuple[str, ...] = ()
) -> None:
    columns = ["NLL", "classwise ECE", "mean p(positive)", *(f"certified at {alpha:g}" for alpha in alphas), *more]
    table = Table("", *columns, title=title)
    for name in figures[0]:
        means = np.mean([figure[name] for figure in figures], axis=0)
        table.add_row(name, *(f"{mean:.4f}" for mean in means[:3]), *(f"{mean:.3f}" for mean in means[3:]))
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--only-prior", action="store_true", help="only what scrc.prior does")
    arguments = parser.parse_args()
    trials = arguments.trials
    weights = np.array([0.5 / (1 - SHARE), 0.5 / SHARE])
    for factor in () if arguments.only_prior else FACTORS:
        for n in SELECT:
            generator = np.random.default_rng(n)
            figures = [trial(simulated(factor, n, generator), weights, (0.01, 0.02)) for _ in range(trials)]
            show(f"simulated, 3 % positives, log-odds x {factor:g}, VAL_SELECT {n:,}", figures, (0.01, 0.02))
    for shares in ((0.25, 0.03), (0.05, 0.3)):
        for factor in FACTORS[:2]:
            for n in SELECT:
                generator = np.random.default_rng(n)
                figures = [served(shares, factor, n, generator) for _ in range(trials)]
                title = f"in use {shares[1]:.0%} positives, in the data {shares[0]:.0%}, x {factor:g}, VAL_SELECT {n:,}"
                show(title, figures, (0.01, 0.02), ("false at 0.02",))
    if arguments.only_prior:
        return
    rows, weights = trucks(0)
    for n in SELECT:
        figures = []
        for number in range(trials):
            order = np.random.default_rng(number).permutation(len(rows.labels))
            parts = (rows[order[:n]], rows[order[n : n + CALIB]], rows[order[n + CALIB :]])
            figures.append(trial(parts, weights, (0.02, 0.05)))
        show(f"CIFAR trucks, 10 % positives, VAL_SELECT {n:,}", figures, (0.02, 0.05))


if __name__ == "__main__":
    main()
