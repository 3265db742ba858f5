import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from natix_lib import config
from natix_lib.config import EarlyStopping, Grid, Model, Optimizer, Training
from natix_lib.documents import CLS_AND_MEAN, HeadType, Pooling
from natix_lib.errors import ConfigError, TrainingError
from natix_lib.training.batched_heads import Heads, Point
from natix_lib.training.classifier import Head
from natix_lib.training.fit import Epoch, Objective, fit
from natix_lib.training.grid import Bank, chosen, fit_grid, points
from natix_lib.training.watch import Figures, figures

RATES, DECAYS = [0.3, 0.003], [0.0, 0.5]


def blobs(images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % 3
    return torch.randn(images, 6, generator=generator) + nn.functional.one_hot(labels, 6), labels


def batches(epoch: int, start: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    features, labels = blobs(150, 0)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(epoch))
    return [(features[rows], labels[rows]) for rows in torch.split(order, 40)]


def bank(weights: torch.Tensor | None = None) -> Bank:
    select, labels = blobs(90, 1)
    views = torch.stack([select, select + 0.1], dim=1)
    return Bank(lambda epoch: iter(batches(epoch)), 4, views, labels, [f"g{row // 3}" for row in range(90)], weights)


def model(dropout_rate: float = 0.0) -> Model:
    return Model(backbone_id="tiny", dropout_rate=dropout_rate)


def head(kind: HeadType) -> Head:
    torch.manual_seed(0)
    made = Head(6, 3, kind, 0.0)
    made.standardise(blobs(150, 0)[0])
    return made


@pytest.mark.parametrize(
    ("kind", "ema_decay", "weights", "optimizer"),
    [
        ("linear", None, None, {}),
        ("linear", 0.9, torch.tensor([0.2, 1.0, 3.0]), {"clip": 0.3, "warmup": 0.2}),
        ("mlp", 0.9, None, {"decayed": "matrices"}),
    ],
)
def test_each_head_of_a_grid_is_what_it_becomes_when_it_is_trained_alone(
    kind: HeadType, ema_decay: float | None, weights: torch.Tensor | None, optimizer: dict
) -> None:
    training = Training(epochs=8, label_smoothing=0.1, early_stopping=EarlyStopping(patience=3))
    of = [Point(lr, decay, 0.0) for lr in RATES for decay in DECAYS]
    shared = bank(weights)
    kept = head(kind)
    grid = fit_grid({CLS_AND_MEAN: kept}, of, shared, replace_optimizer(training, optimizer), ema_decay)
    for number, point in enumerate(of):
        alone = head(kind)

        def score(alone: Head = alone) -> Figures:
            return figures(alone(shared.select).mean(dim=1), shared.select_labels)

        objective = Objective(batches, 4, weights, score)
        own = {"lr": point.lr, "weight_decay": point.weight_decay, **optimizer}
        history = fit(alone, objective, replace_optimizer(training, own), ema_decay)
        best = max(history, key=lambda row: (row.val_select_acc, -row.val_select_loss))
        line = grid.table[number]
        assert line["epoch"] == best.epoch
        assert line["val_select_loss"] == pytest.approx(best.val_select_loss, rel=1e-4)
        assert line["train_loss"] == pytest.approx(best.train_loss, rel=1e-4)
        if number == grid.row:
            assert [row.epoch for row in grid.history] == [row.epoch for row in history]
            assert [row.lr for row in grid.history] == pytest.approx([row.lr for row in history])
            for name, value in alone.state_dict().items():
                torch.testing.assert_close(kept.state_dict()[name], value, rtol=1e-3, atol=1e-5)
    assert [line["kept"] for line in grid.table] == [number == grid.row for number in range(4)]


def replace_optimizer(training: Training, changes: dict) -> Training:
    return training.model_copy(update={"optimizer": Optimizer(**changes)})


def test_the_gradients_of_a_head_are_clipped_as_torch_clips_them() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([0.01, 1, 100])
    gradients = {
        "weight": torch.randn(3, 4, 5, generator=generator) * sizes.view(3, 1, 1),
        "bias": torch.randn(3, 4, generator=generator) * sizes.view(3, 1),
    }
    values = {name: torch.zeros_like(gradient) for name, gradient in gradients.items()}
    for name, gradient in gradients.items():
        values[name].grad = gradient.clone()
    Heads._clip(SimpleNamespace(values=values, optimizer=Optimizer(clip=1.5)))  # type: ignore[arg-type]
    for number in range(3):
        parameters = {name: nn.Parameter(torch.zeros_like(gradient[number])) for name, gradient in gradients.items()}
        for name, parameter in parameters.items():
            parameter.grad = gradients[name][number].clone()
        nn.utils.clip_grad_norm_(parameters.values(), 1.5)
        for name, parameter in parameters.items():
            clipped = values[name].grad
            assert clipped is not None
            torch.testing.assert_close(clipped[number], parameter.grad)


def test_a_dropout_rate_of_the_grid_reaches_its_head_and_the_kept_one_s_is_kept() -> None:
    training = Training(epochs=30, grid=Grid(dropout_rate=[0.0, 0.9]), optimizer=Optimizer(lr=0.1))
    of = points(training, model(dropout_rate=0.5))
    assert [point.dropout_rate for point in of] == [0.0, 0.9]
    torch.manual_seed(1)
    kept = head("mlp")
    grid = fit_grid({CLS_AND_MEAN: kept}, of, bank(), training, None)
    assert grid.table[0]["train_loss"] < grid.table[1]["train_loss"] - 0.1
    assert kept.dropout.p == of[grid.row].dropout_rate


def test_without_a_grid_there_is_one_point_of_the_plain_keys_and_with_it_every_combination() -> None:
    assert points(Training(), model(dropout_rate=0.2)) == [Point(1e-3, 1e-4, 0.2, ("cls", "mean"))]
    of = points(Training(grid=Grid(lr=RATES, weight_decay=DECAYS, dropout_rate=[0.1, 0.2])), model())
    assert len(set(of)) == len(of) == 8 and {point.dropout_rate for point in of[:4]} == {0.1}


def test_a_head_that_overflows_is_passed_over_and_if_all_do_it_is_said() -> None:
    training = Training(epochs=3)
    grid = fit_grid(
        {CLS_AND_MEAN: head("linear")}, [Point(1e38, 0.0, 0.0), Point(0.1, 0.0, 0.0)], bank(), training, None
    )
    assert grid.row == 1 and "epoch" not in grid.table[0]
    with pytest.raises(TrainingError, match=r"no head of training.grid has a finite loss: lower .*training.grid.lr"):
        fit_grid({CLS_AND_MEAN: head("linear")}, [Point(1e38, 0.0, 0.0), Point(2e38, 0.0, 0.0)], bank(), training, None)


def rows(*of: tuple[float, float]) -> list[Epoch]:
    return [Epoch(0, 1, 0.1, 0.5, 0.5, loss, acc, 0.5, 0.5) for acc, loss in of]


def correct(*wrong: range) -> np.ndarray:
    table = np.ones((len(wrong), 100), dtype=bool)
    for line, of in zip(table, wrong, strict=True):
        line[list(of)] = False
    return table


SINGLE = [str(row) for row in range(100)]


def test_of_heads_within_the_noise_of_the_best_the_lowest_loss_is_kept() -> None:
    best = rows((0.95, 0.4), (0.94, 0.2), (0.80, 0.1))
    right = correct(range(5), range(4, 10), range(5, 25))
    assert chosen(best, right, SINGLE, Training()) == 1
    assert chosen(best[::2], right[::2], SINGLE, Training()) == 0  # 15 images are no noise


def test_errors_of_one_group_are_one_piece_of_evidence() -> None:
    best = rows((0.96, 0.4), (0.90, 0.2))
    right = correct(range(15, 19), range(10))  # ten images of the first fifteen against four of the next
    assert chosen(best, right, SINGLE, Training()) == 0
    assert chosen(best, right, [str(row // 15) for row in range(100)], Training()) == 1


def test_the_standard_error_is_that_of_resampled_groups() -> None:
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 40, 300)
    lead = draw.integers(-1, 2, 300) * (draw.random(40) < 0.5)[groups]
    of_groups = np.bincount(groups, weights=lead - lead.mean(), minlength=40)
    formula = math.sqrt((of_groups**2).sum()) / 300
    sums, sizes = np.bincount(groups, weights=lead), np.bincount(groups)
    drawn = draw.integers(0, 40, (4000, 40))
    bootstrap = (sums[drawn].sum(1) / sizes[drawn].sum(1)).std()
    assert formula == pytest.approx(bootstrap, rel=0.08)


def test_of_other_figures_the_best_is_kept() -> None:
    best = [
        replace(row, val_select_macro_f1=f1) for row, f1 in zip(rows((0.9, 0.4), (0.9, 0.2)), (0.8, 0.7), strict=True)
    ]
    training = Training(early_stopping=EarlyStopping(monitor="val_select/macro_f1"))
    assert chosen(best, correct(range(10), range(10)), SINGLE, training) == 0
    assert chosen(best, correct(range(10), range(10)), SINGLE, Training()) == 1


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"training": {"grid": {"lr": [1e-3, 1e-3]}}}, r"training.grid.lr must name each value once"),
        ({"training": {"grid": {"lr": [0.0]}}}, r"training.grid.lr"),
        (
            {"training": {"grid": {"lr": [i + 1 for i in range(11)], "weight_decay": [i for i in range(10)]}}},
            r"at most 100 combinations, got 110",
        ),
        ({"training": {"grid": {"lr": [1e-3, 1e-2]}, "feature_cache": False}}, r"training.grid tries heads on cached"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(section: dict, message: str) -> None:
    whole = {"data": {"data_root": "x"}, "model": {"backbone_id": "a/b"}, "export": {"policy": "sweep"}, **section}
    with pytest.raises(ConfigError, match=message):
        config.parse(config.Config, whole)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_heads_of_several_poolings_are_each_what_they_become_on_their_own_columns_alone(kind: HeadType) -> None:
    places: dict[tuple[Pooling, ...], torch.Tensor] = {
        ("cls", "std"): torch.tensor([0, 1, 4, 5]),
        ("max",): torch.tensor([2, 3]),
    }

    def first(pooling: tuple[Pooling, ...]) -> Head:
        torch.manual_seed(0)
        made = Head(len(places[pooling]), 3, kind, 0.0)
        made.standardise(blobs(150, 0)[0][:, places[pooling]])
        return made

    optimizer: dict = {"clip": 0.3, "warmup": 0.2}
    training = Training(epochs=8, early_stopping=EarlyStopping(patience=3), optimizer=Optimizer(**optimizer))
    of = [Point(lr, 0.1, 0.0, pooling) for pooling in places for lr in RATES]
    heads, shared = {pooling: first(pooling) for pooling in places}, replace(bank(), columns=places)
    grid = fit_grid(heads, of, shared, training, 0.9)
    for number, point in enumerate(of):
        alone, columns = first(point.pooling), places[point.pooling]

        def of_pooling(epoch: int, start: int = 0, columns: torch.Tensor = columns) -> list:
            return [(features[:, columns], labels) for features, labels in batches(epoch, start)]

        def score(alone: Head = alone, columns: torch.Tensor = columns) -> Figures:
            return figures(alone(shared.select[..., columns]).mean(dim=1), shared.select_labels)

        own = {"lr": point.lr, "weight_decay": point.weight_decay, **optimizer}
        history = fit(alone, Objective(of_pooling, 4, None, score), replace_optimizer(training, own), 0.9)
        best = max(history, key=lambda row: (row.val_select_acc, -row.val_select_loss))
        line = grid.table[number]
        assert (line["pooling"], line["epoch"]) == ("+".join(point.pooling), best.epoch)
        assert line["val_select_loss"] == pytest.approx(best.val_select_loss, rel=1e-4)
        assert line["train_loss"] == pytest.approx(best.train_loss, rel=1e-4)
        if number == grid.row:
            for name, value in alone.state_dict().items():
                torch.testing.assert_close(heads[point.pooling].state_dict()[name], value, rtol=1e-3, atol=1e-5)
