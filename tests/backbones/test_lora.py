import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from natix_lib.backbones.loading import load_backbone
from natix_lib.backbones.lora import block_of, depth_of, inject_lora, merge_lora
from natix_lib.errors import ConfigError

SMALL = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 8, "image_size": 32}


def tokens(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return module(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))).last_hidden_state


def disturb(module: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".lora_" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("family", ["dinov3", "dinov2"])
def test_a_backbone_that_lora_was_merged_into_is_a_plain_one_that_says_the_same(
    tiny_backbone: Path, family: str
) -> None:
    backbone = load_backbone(tiny_backbone) if family == "dinov3" else Dinov2Model(Dinov2Config(**SMALL)).eval()
    plain = {name: type(module) for name, module in backbone.named_modules()}
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    untouched = tokens(backbone)
    inject_lora(backbone, 4, 2.0, depth_of(backbone))
    assert torch.equal(tokens(backbone), untouched)
    assert all(p.requires_grad == (".lora_" in name) for name, p in backbone.named_parameters())
    disturb(backbone)
    tuned = tokens(backbone)
    merge_lora(backbone)
    assert {name: type(module) for name, module in backbone.named_modules()} == plain
    assert list(backbone.state_dict()) == list(before)
    torch.testing.assert_close(tokens(backbone), tuned, rtol=1e-4, atol=1e-5)
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rsplit(".", 2)[-2] for name in changed} == {"q_proj", "v_proj"}
    assert len(changed) == 2 * depth_of(backbone)


def test_blocks_are_counted_in_every_family(tiny_backbone: Path) -> None:
    assert depth_of(load_backbone(tiny_backbone)) == 2
    assert depth_of(Dinov2Model(Dinov2Config(**SMALL))) == 3
    assert depth_of(nn.Linear(2, 2)) == 0
    assert block_of("encoder.layer.12.norm1.weight") == 12 and block_of("layernorm.weight") is None


def test_merging_without_lora_changes_nothing(tiny_backbone: Path) -> None:
    backbone = load_backbone(tiny_backbone)
    before = tokens(backbone)
    merge_lora(backbone)
    assert torch.equal(tokens(backbone), before)


def test_lora_without_peft_says_what_to_install(tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"^LoRA needs the package peft: pip install 'natix\[train\]'$"):
        inject_lora(load_backbone(tiny_backbone), 4, 1.0, 2)
