from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel

from natix_lib.backbones.loading import load_backbone
from natix_lib.backbones.lora import merged_state
from natix_lib.errors import ConfigError
from natix_lib.explora.adapters import add_adapters, teacher_of, trainable_names, update_teacher

FAMILY = {
    "ViT-B": (9_291_264, 768, 12, 12, 3072, False),
    "ViT-L": (18_728_960, 1024, 24, 16, 4096, False),
    "ViT-H+": (36_564_480, 1280, 32, 20, 5120, True),
}


@pytest.fixture
def backbone(tiny_backbone: Path) -> nn.Module:
    return load_backbone(tiny_backbone)


def tokens(module: nn.Module, seed: int = 0) -> torch.Tensor:
    with torch.no_grad():
        return module(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed))).last_hidden_state


def disturb(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize("name", FAMILY)
def test_the_trained_parameters_of_the_family_are_counted(name: str) -> None:
    expected, width, depth, heads, inner, gated = FAMILY[name]
    with torch.device("meta"):
        config = DINOv3ViTConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=inner,
            use_gated_mlp=gated,
            num_register_tokens=4,
        )
        model = DINOv3ViTModel(config)
        add_adapters(model, 64, 1.0, 1)
    mlp = 3 * width * inner + 2 * inner + width if gated else 2 * width * inner + inner + width
    block = 4 * width**2 + 3 * width + mlp + 2 * width  # q, v and o have a bias, k has none; two layer scales
    lora = (depth - 1) * 2 * 2 * 64 * width
    norms, tokens = (2 * depth + 1) * 2 * width, (1 + 1 + 4) * width  # CLS, mask, four registers
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected
    assert expected == block + lora + norms + tokens


def test_only_lora_norms_tokens_and_the_last_block_train(backbone: nn.Module) -> None:
    names = add_adapters(backbone, 4, 1.0, 1)
    first = {n.split("layer.0.")[1] for n in names if "layer.0." in n}
    assert first == {
        *(f"attention.{t}.lora_{m}.default.weight" for t in ("q_proj", "v_proj") for m in "AB"),
        *(f"{norm}.{p}" for norm in ("norm1", "norm2") for p in ("weight", "bias")),
    }
    last = [n for n, _ in backbone.named_parameters() if "layer.1." in n]
    assert set(last) < set(names) and not any("lora" in n for n in last)
    tokens = {f"embeddings.{name}" for name in ("cls_token", "mask_token", "register_tokens")}
    assert tokens | {"norm.weight", "norm.bias"} < set(names)
    assert "embeddings.patch_embeddings.weight" not in names


def test_fresh_adapters_change_nothing(backbone: nn.Module) -> None:
    before = tokens(backbone)
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    add_adapters(backbone, 4, 1.0, 1)
    assert torch.equal(tokens(backbone), before)
    merged = merged_state(backbone)
    assert list(merged) == list(state) and all(torch.equal(merged[name], state[name]) for name in state)


def test_merged_equals_unmerged_and_loads_strictly(backbone: nn.Module, tiny_backbone: Path) -> None:
    add_adapters(backbone, 4, 1.0, 1)
    disturb(backbone)
    merged = load_backbone(tiny_backbone)
    merged.load_state_dict(merged_state(backbone), strict=True)
    torch.testing.assert_close(tokens(merged), tokens(backbone), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(tokens(merged), tokens(load_backbone(tiny_backbone)), atol=1e-2)


def test_the_update_is_scaled_by_alpha_over_rank(backbone: nn.Module) -> None:
    weight = backbone.get_parameter("model.layer.0.attention.q_proj.weight").detach().clone()
    add_adapters(backbone, 8, 2.0, 1)
    a, b = (backbone.get_parameter(f"model.layer.0.attention.q_proj.lora_{m}.default.weight") for m in "AB")
    with torch.no_grad():
        b.fill_(0.5)
    merged = merged_state(backbone)["model.layer.0.attention.q_proj.weight"]
    torch.testing.assert_close(merged - weight, (2.0 / 8) * (b @ a).detach())


def test_a_removed_or_renamed_key_raises(backbone: nn.Module, tiny_backbone: Path) -> None:
    add_adapters(backbone, 4, 1.0, 1)
    state = merged_state(backbone)
    state["renamed"] = state.pop("norm.weight")
    with pytest.raises(RuntimeError, match=r'Missing key.*"norm.weight"[\s\S]*Unexpected key.*"renamed"'):
        load_backbone(tiny_backbone).load_state_dict(state, strict=True)


def test_a_backbone_whose_modules_match_no_target_is_refused(backbone: nn.Module) -> None:
    for layer in backbone.model.layer:  # type: ignore[union-attr]
        layer.attention.query = layer.attention.q_proj
        del layer.attention.q_proj
    with pytest.raises(ConfigError, match="match no LoRA target: q_proj, v_proj must be in each of 1 blocks, 1 were"):
        add_adapters(backbone, 4, 1.0, 1)


def test_more_unfrozen_blocks_than_there_are_is_refused(backbone: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"^explora.unfrozen_blocks must be in 0..2, the backbone's blocks, got 3"):
        add_adapters(backbone, 4, 1.0, 3)


def test_dinov2_is_adapted_too() -> None:
    config = Dinov2Config(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128, patch_size=8, image_size=32
    )
    model = Dinov2Model(config).eval()
    before = tokens(model)
    names = add_adapters(model, 4, 1.0, 1)
    assert sum("lora" in name for name in names) == 2 * 2 * 2
    assert {"embeddings.cls_token", "embeddings.mask_token", "layernorm.weight"} < set(names)
    assert torch.equal(tokens(model), before)
    disturb(model)
    merged = Dinov2Model(config).eval()
    merged.load_state_dict(merged_state(model), strict=True)
    torch.testing.assert_close(tokens(merged), tokens(model), rtol=1e-4, atol=1e-5)


def test_the_teacher_shares_what_is_frozen_and_averages_what_trains(backbone: nn.Module) -> None:
    add_adapters(backbone, 4, 1.0, 1)
    teacher = teacher_of(backbone)
    teacher_parameters, student = dict(teacher.named_parameters()), dict(backbone.named_parameters())
    names = trainable_names(backbone)
    assert all((teacher_parameters[n] is student[n]) == (n not in names) for n in student)
    assert not teacher.training and not any(p.requires_grad for n, p in teacher_parameters.items() if n in names)
    before = {n: teacher_parameters[n].clone() for n in names}
    disturb(backbone)
    update_teacher(teacher, backbone, 0.75)
    for n in names:
        torch.testing.assert_close(teacher_parameters[n], 0.75 * before[n] + 0.25 * student[n].detach())


def test_the_teacher_gives_the_same_twice_and_the_student_does_not(backbone: nn.Module) -> None:
    add_adapters(backbone, 4, 1.0, 1)
    teacher = teacher_of(backbone)
    assert torch.equal(tokens(teacher), tokens(teacher))
    backbone.train()  # rotary positions are rescaled at random
    assert not torch.equal(tokens(backbone), tokens(backbone))
