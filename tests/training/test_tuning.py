from pathlib import Path

import pytest
import torch
from torch import nn

from natix_lib import config
from natix_lib.backbones.loading import load_backbone
from natix_lib.config import FineTune, Optimizer
from natix_lib.errors import ConfigError
from natix_lib.training.classifier import Classifier, Head
from natix_lib.training.tuning import adamw, begin_tuning, end_tuning, rate


@pytest.fixture
def backbone(tiny_backbone: Path) -> nn.Module:
    return load_backbone(tiny_backbone)


def trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_each_method_trains_its_weights_and_no_others(tiny_backbone: Path) -> None:
    every = {name for name, _ in load_backbone(tiny_backbone).named_parameters()}
    expected = {
        "all": every,
        "blocks": {name for name in every if "layer.1." in name or name.startswith("norm.")},
        "lora": {
            f"model.layer.{block}.attention.{target}.lora_{matrix}.default.weight"
            for block in (0, 1)
            for target in ("q_proj", "v_proj")
            for matrix in "AB"
        },
    }
    for method, names in expected.items():
        backbone = load_backbone(tiny_backbone)
        begin_tuning(backbone, config.parse(FineTune, {"method": method}), 0)
        assert trained(backbone) == names, method


def test_lora_begins_alike_whatever_was_drawn_before_and_leaves_torchs_generator_alone(tiny_backbone: Path) -> None:
    states = []
    for draws in (0, 5):
        torch.manual_seed(1)
        torch.rand(draws)
        backbone = load_backbone(tiny_backbone)
        before = torch.get_rng_state()
        begin_tuning(backbone, FineTune(method="lora"), 3)
        assert torch.equal(torch.get_rng_state(), before)
        states.append({name: p for name, p in backbone.named_parameters() if "lora_A" in name})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_more_blocks_than_there_are_are_refused(backbone: nn.Module) -> None:
    with pytest.raises(
        ConfigError, match="^training.fine_tune.blocks must be at most 2, the backbone's blocks, got 3$"
    ):
        begin_tuning(backbone, FineTune(method="blocks", blocks=3), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (FineTune(method="lora"), "^training.fine_tune.method lora needs a backbone with transformer blocks"),
        (FineTune(gradient_checkpointing=True), "this backbone cannot compute activations twice$"),
    ],
)
def test_what_a_backbone_cannot_do_is_refused(settings: FineTune, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        begin_tuning(nn.Sequential(nn.Linear(2, 2)), settings, 0)


def test_rates_fall_from_the_head_to_the_embeddings(backbone: nn.Module) -> None:
    model = Classifier(backbone, 2)
    optimizer = adamw(model, Optimizer(lr=0.1), 0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates.keys() == set(names.values())
    for name, lr in rates.items():
        if name.startswith("head.") or name.startswith("backbone.norm."):
            expected = 0.1
        elif "embeddings" in name:
            expected = 0.1 / 8
        else:
            expected = {"layer.1": 0.1 / 2, "layer.0": 0.1 / 4}[name.removeprefix("backbone.model.")[:7]]
        assert lr == pytest.approx(expected), name


def test_matrices_alone_decay_where_so_asked(backbone: nn.Module) -> None:
    model = Classifier(backbone, 2, "mlp")
    optimizer = adamw(model, Optimizer(weight_decay=0.3, decayed="matrices"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name for name, decay in decays.items() if decay} == {
        f"{owner}.weight" for owner, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))
    }
    assert set(decays.values()) == {0.0, 0.3}


def test_by_default_there_is_one_group_in_the_order_of_the_parameters() -> None:
    head = Head(4, 2, "mlp", 0.0)
    (group,) = adamw(head, Optimizer(lr=0.2, weight_decay=0.1)).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in head.parameters()]
    assert (group["lr"], group["weight_decay"]) == (0.2, 0.1)


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_the_schedule_is_that_of_torch(warmup: float) -> None:
    total, rising = 40, round(40 * warmup)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - rising)
    schedule: torch.optim.lr_scheduler.LRScheduler = cosine
    if rising:
        linear = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / rising, 1 - 1e-12, rising - 1)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [linear, cosine], [rising])
    theirs = []
    for _ in range(total):
        theirs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert [rate(step, total, warmup) for step in range(total)] == pytest.approx(theirs, abs=1e-6)
    assert rate(total, total, warmup) == pytest.approx(0.0, abs=1e-12) and rate(1, 1, 1.0) == 1.0


def test_activations_that_are_computed_twice_give_the_same_gradients(tiny_backbone: Path) -> None:
    gradients = []
    for twice in (False, True):
        backbone = load_backbone(tiny_backbone)
        begin_tuning(backbone, FineTune(method="lora", gradient_checkpointing=twice), 0)
        torch.manual_seed(0)
        backbone.train()
        backbone(torch.ones(2, 3, 32, 32)).last_hidden_state.square().sum().backward()
        gradients.append({name: p.grad for name, p in backbone.named_parameters() if p.grad is not None})
        assert backbone.is_activation_checkpointing == twice
        end_tuning(backbone)
        assert not backbone.is_activation_checkpointing
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) == 8
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, msg=name)


def test_a_backbone_that_lora_has_tuned_computes_the_same_when_it_is_one_model_again(backbone: nn.Module) -> None:
    names = backbone.state_dict().keys()
    begin_tuning(backbone, FineTune(method="lora", lora_rank=4), 0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    backbone.eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tuned = backbone(pixels).last_hidden_state
        end_tuning(backbone)
        assert backbone.state_dict().keys() == names
        torch.testing.assert_close(backbone(pixels).last_hidden_state, tuned, rtol=1e-4, atol=1e-4)
