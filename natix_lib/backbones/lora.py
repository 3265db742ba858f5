"""LoRA in a backbone: put into its blocks by peft, and added into their weights again.

Hu et al., LoRA (arXiv 2106.09685). The matrices stand on q and v of a block, as in the paper's section 4.2 and in
ExPLoRA. The update is scaled by alpha / r. What is merged is a model of the original structure and key names, so no
artifact knows of LoRA. peft is imported where it is used: most trainings have no LoRA.
"""

import re
from typing import Any

import torch
from torch import Tensor, nn

from natix_lib.errors import ConfigError

BLOCK = re.compile(r"(?:^|\.)layer\.(\d+)\.")  # suffix patterns: the prefix differs between versions and families
TARGETS = ("q_proj", "v_proj")


def block_of(name: str) -> int | None:
    """The number of the block that a module or parameter of a backbone belongs to; None outside all blocks."""
    match = BLOCK.search(f"{name}.")
    return int(match[1]) if match else None


def depth_of(backbone: nn.Module) -> int:
    """How many blocks a backbone has."""
    return 1 + max(
        (number for name, _ in backbone.named_modules() if (number := block_of(name)) is not None), default=-1
    )


def inject_lora(backbone: nn.Module, rank: int, alpha: float, blocks: int) -> None:
    """Put LoRA, which changes nothing yet, on q and v of the first `blocks` blocks, and freeze everything else.

    Args:
        backbone: A loaded ViT; changed in place. With no blocks it is left as it is.
        rank: Rank r of the LoRA matrices.
        alpha: The LoRA update is scaled by alpha / r.
        blocks: How many, from the first; at most `depth_of(backbone)`.

    Raises:
        ConfigError: If q or v of such a block is not found, or peft is not installed.
    """
    adapted = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear)
        and name.rsplit(".", 1)[-1] in TARGETS
        and (number := block_of(name)) is not None
        and number < blocks
    ]
    if len(adapted) != len(TARGETS) * blocks:
        raise ConfigError(
            f"the backbone's modules match no LoRA target: {', '.join(TARGETS)} must be in each of "
            f"{blocks} blocks, {len(adapted)} were found"
        )
    if not adapted:
        return
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("LoRA needs the package peft: pip install 'natix[train]'") from error
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=adapted), backbone)


@torch.no_grad()
def merged_state(backbone: nn.Module) -> dict[str, Tensor]:
    """The state of the backbone with LoRA added into its weights: the keys and shapes that it had before LoRA."""
    state: dict[str, Tensor] = {}
    layers = _lora_layers(backbone)
    for name, value in backbone.state_dict().items():
        if ".lora_" in name:
            continue
        owner = name.rsplit(".base_layer.", 1)
        if len(owner) == 1:
            state[name] = value
        elif owner[1] == "weight":
            state[".".join(owner)] = value + layers[owner[0]].get_delta_weight("default").to(value)
        else:
            state[".".join(owner)] = value
    return state


def merge_lora(backbone: nn.Module) -> None:
    """Add LoRA into the weights of a backbone and take its layers out, in place; without LoRA nothing changes."""
    layers = _lora_layers(backbone)
    if not layers:
        return
    state = merged_state(backbone)
    for name, layer in layers.items():
        backbone.set_submodule(name, layer.get_base_layer())
    backbone.load_state_dict(state, strict=True)
    if hasattr(backbone, "peft_config"):
        del backbone.peft_config


def _lora_layers(backbone: nn.Module) -> dict[str, Any]:
    """The layers that peft has put LoRA on, by name."""
    if not any(".lora_" in name for name, _ in backbone.named_parameters()):
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in backbone.named_modules() if isinstance(module, LoraLayer)}
