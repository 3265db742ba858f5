from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor

from natix_lib.config import EarlyStopping, Optimizer, Training, parse
from natix_lib.errors import ConfigError
from natix_lib.training.classifier import Head
from natix_lib.training.fit import Epoch, Objective, class_weights, fit
from natix_lib.training.watch import Figures, best_epoch, figures, monitored, ranked

MONITORS = ("val_select/acc", "val_select/macro_f1", "val_select/mcc", "val_select/loss")
ROW = Epoch(0, 10, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)


@pytest.mark.parametrize("classes", [2, 5, 13])
@pytest.mark.parametrize("seed", range(4))
def test_the_figures_are_those_of_scikit_learn(classes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(40, classes)).astype(np.float32) * 2
    labels = generator.choice(classes, 40, p=generator.dirichlet(np.full(classes, 0.4)))
    logits[np.arange(40), labels] += 1
    found, prediction = figures(torch.from_numpy(logits), torch.from_numpy(labels)), logits.argmax(1)
    probabilities = torch.softmax(torch.from_numpy(logits).double(), 1).numpy()
    assert found.loss == pytest.approx(sk.log_loss(labels, probabilities, labels=range(classes)))
    assert found.acc == pytest.approx(sk.accuracy_score(labels, prediction))
    assert found.macro_f1 == pytest.approx(sk.f1_score(labels, prediction, average="macro"))
    assert found.mcc == pytest.approx(sk.matthews_corrcoef(labels, prediction))


def test_one_answer_for_all_has_no_correlation_and_a_macro_f1_of_the_classes_that_are_there() -> None:
    found = figures(torch.tensor([[2.0, 1.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1]))
    assert found.mcc == 0 and found.acc == 0.75
    assert found.macro_f1 == pytest.approx((6 / 7 + 0) / 2)


def scripted(rows: list[Figures], stopping: EarlyStopping) -> tuple[list[Epoch], float]:
    """The history where epoch i has the i-th figures, and which epoch's weights are kept, told by a weight."""
    head, script = Head(1, 2, "linear", 0.0), iter(rows)
    steps: list[Tensor] = []

    def score() -> Figures:
        steps.append(head.linear.weight.detach().clone())
        return next(script)

    objective = Objective(lambda epoch, start: [(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]))], 1, None, score)
    history = fit(head, objective, Training(epochs=len(rows), early_stopping=stopping), None)
    return history, next(i for i, weight in enumerate(steps) if torch.equal(weight, head.linear.weight))


@pytest.mark.parametrize(("monitor", "kept"), [*zip(MONITORS, (1, 2, 3, 4), strict=True)])
def test_the_monitor_chooses_the_epoch_whose_weights_are_kept(monitor: str, kept: int) -> None:
    base = Figures(0.5, 0.5, 0.5, 0.5)
    rows = [base, base._replace(acc=0.9), base._replace(macro_f1=0.9), base._replace(mcc=0.9), base._replace(loss=0.1)]
    stopping = parse(EarlyStopping, {"monitor": monitor})
    history, weights = scripted([*rows, base], stopping)
    assert best_epoch(history, stopping).epoch == weights == kept
    assert monitored(history[kept], stopping) == (0.1 if monitor.endswith("loss") else 0.9)


@pytest.mark.parametrize("monitor", MONITORS)
def test_patience_counts_the_monitored_figure_and_no_other(monitor: str) -> None:
    better = Figures(0.4, 0.6, 0.6, 0.6)
    worst = {"loss": 0.4, "acc": 0.6, "macro_f1": 0.6, "mcc": 0.6}
    name = monitor.removeprefix("val_select/")
    others = [
        Figures(**{**{key: (0.4 - i / 20 if key == "loss" else 0.6 + i / 20) for key in worst}, name: worst[name]})
        for i in range(1, 6)
    ]
    stopping = parse(EarlyStopping, {"monitor": monitor, "patience": 3})
    history, _ = scripted([Figures(0.5, 0.5, 0.5, 0.5), better, *others], stopping)
    assert len(history) == 2 + 3


@pytest.mark.parametrize("monitor", MONITORS[:3])
def test_a_tie_goes_to_the_lower_loss_and_then_to_the_earlier_epoch(monitor: str) -> None:
    stopping = parse(EarlyStopping, {"monitor": monitor})
    rows = [Figures(loss, 0.5, 0.5, 0.5) for loss in (0.5, 0.3, 0.3, 0.4)]
    history, weights = scripted(rows, stopping)
    assert best_epoch(history, stopping).epoch == weights == 1
    assert best_epoch([replace(ROW, epoch=3), replace(ROW, epoch=4)], stopping).epoch == 3


@pytest.mark.parametrize("monitor", MONITORS)
def test_a_direction_that_does_not_fit_the_monitor_is_refused(monitor: str) -> None:
    right, wrong = ("min", "max") if monitor.endswith("loss") else ("max", "min")
    section = {"early_stopping": {"monitor": monitor, "mode": wrong}}
    with pytest.raises(
        ConfigError,
        match=f"^config: training.early_stopping.mode must be {right} or auto for the monitor {monitor}, got {wrong}$",
    ):
        parse(Training, section)
    for mode in (right, "auto"):
        stopping, field = parse(EarlyStopping, {"monitor": monitor, "mode": mode}), monitor.replace("/", "_")
        ranks = [ranked(Epoch(**{**asdict(ROW), field: value}), stopping) for value in (0.2, 0.3)]
        assert (ranks[0] < ranks[1]) == (right == "max")


def test_a_figure_that_is_not_logged_cannot_be_watched() -> None:
    with pytest.raises(ConfigError, match="monitor: input should be 'val_select/acc', .* got 'val_select/auc'"):
        parse(EarlyStopping, {"monitor": "val_select/auc"})


CLASSES, RARE = 13, 12
SHARES = np.array([0.3, 0.2, 0.12, 0.08, *[0.036] * 8, 0.012])


@cache
def drawn(images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features in 13 overlapping clouds of unequal size; the smallest lies beside the largest."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), np.round(SHARES / SHARES.sum() * images).astype(int))
    centres = np.random.default_rng(99).normal(size=(CLASSES, 16)) * 0.8
    centres[RARE] = centres[0] + np.random.default_rng(7).normal(size=16) * 0.5
    features = centres[labels] + generator.normal(size=(len(labels), 16))
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


@cache
def kept(rule: str, monitor: str) -> tuple[float, float, float, float]:
    """Recall of the rare class, balanced accuracy, accuracy and macro-F1 on held-back images, by scikit-learn."""
    torch.manual_seed(0)
    (features, labels), (choice, choice_labels), (test, truth) = drawn(2000, 1), drawn(1000, 2), drawn(8000, 3)
    head = Head(16, CLASSES, "linear", 0.0)
    head.standardise(features)

    def batches(epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        return ((features[rows], labels[rows]) for rows in order.split(64))

    def score() -> Figures:
        with torch.no_grad():
            return figures(head(choice), choice_labels)

    stopping = parse(EarlyStopping, {"monitor": monitor, "patience": 30})
    training = Training(epochs=30, optimizer=Optimizer(lr=3e-3), early_stopping=stopping)
    objective = Objective(batches, -(-len(labels) // 64), class_weights(labels, CLASSES, rule), score)
    fit(head, objective, training, None)
    with torch.no_grad():
        answers = head(test).argmax(1).numpy()
    recalls = sk.recall_score(truth, answers, average=None)
    return (
        float(recalls[RARE]),
        float(sk.balanced_accuracy_score(truth, answers)),
        float(sk.accuracy_score(truth, answers)),
        float(sk.f1_score(truth, answers, average="macro")),
    )


def test_class_weights_find_a_rare_class_of_thirteen_at_some_accuracy() -> None:
    recall, balanced, accuracy, _ = kept("none", "val_select/macro_f1")
    weighted_recall, weighted_balanced, weighted_accuracy, _ = kept("balanced", "val_select/macro_f1")
    assert recall < 0.05 and weighted_recall > 0.25
    assert weighted_balanced > balanced + 0.03
    assert weighted_accuracy < accuracy


def test_macro_f1_keeps_an_epoch_that_knows_the_rare_class_where_accuracy_keeps_one_that_does_not() -> None:
    blind, blind_balanced, _, blind_f1 = kept("balanced", "val_select/acc")
    recall, balanced, _, f1 = kept("balanced", "val_select/macro_f1")
    assert blind < 0.15 and recall > blind + 0.15
    assert balanced > blind_balanced + 0.01 and f1 > blind_f1 + 0.01
