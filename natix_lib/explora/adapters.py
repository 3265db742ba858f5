"""Which parameters ExPLoRA trains: LoRA on q and v of most blocks, a few whole blocks, norms, CLS, mask and registers.

Khanna et al., ExPLoRA (arXiv 2406.10973). LoRA is that of `backbones/lora.py`. Its scale is alpha / r, as in the
authors' code (1/64 by default); alpha / sqrt(r) was rejected because it would change what their learning rate means.

Register tokens train where a backbone has them, as in a fork of the authors' code. The mask token trains too, which
that fork leaves off by default: iBOT's student sees it in place of half a crop, and its loss shapes it.
"""

import copy
from typing import Any, TypeVar

import torch
from torch import nn

from natix_lib.backbones.lora import block_of, depth_of, inject_lora
from natix_lib.errors import ConfigError

TOKENS = ("cls_token", "mask_token", "register_tokens")


def add_adapters(backbone: nn.Module, rank: int, alpha: float, unfrozen_blocks: int) -> list[str]:
    """Put LoRA into a backbone and set which of its parameters train; everything else is frozen.

    Args:
        backbone: A loaded ViT; changed in place.
        rank: Rank r of the LoRA matrices.
        alpha: The LoRA update is scaled by alpha / r.
        unfrozen_blocks: The last so many blocks train entirely and get no LoRA.

    Returns:
        Names of the trainable parameters, in order.

    Raises:
        ConfigError: If no module matches a LoRA target, or there are not so many blocks.
    """
    depth = depth_of(backbone)
    if not 0 <= unfrozen_blocks <= depth or depth == 0:
        raise ConfigError(
            f"explora.unfrozen_blocks must be in 0..{depth}, the backbone's blocks, got {unfrozen_blocks}"
        )
    inject_lora(backbone, rank, alpha, depth - unfrozen_blocks)
    norms = {
        f"{name}.{parameter}"
        for name, module in backbone.named_modules()
        if isinstance(module, nn.LayerNorm)
        for parameter, _ in module.named_parameters(recurse=False)
    }
    for name, parameter in backbone.named_parameters():
        block = block_of(name)
        parameter.requires_grad_(
            ".lora_" in name
            or name in norms
            or name.endswith(TOKENS)
            or (block is not None and block >= depth - unfrozen_blocks)
        )
    return trainable_names(backbone)


def train_all(backbone: nn.Module) -> list[str]:
    """Let all parameters of a backbone train, the patch embedding too; their names, in order."""
    backbone.requires_grad_(True)
    return trainable_names(backbone)


def trainable_names(module: nn.Module) -> list[str]:
    """Names of the parameters that train, in order."""
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


M = TypeVar("M", bound=nn.Module)


def teacher_of(student: M) -> M:
    """A copy of the trainable parameters in eval mode and without gradient, that shares the frozen ones.

    Sharing halves the memory that the frozen weights of a large ViT take.
    """
    shared: dict[int, Any] = {id(p): p for p in student.parameters() if not p.requires_grad}
    shared |= {id(b): b for b in student.buffers()}
    teacher = copy.deepcopy(student, shared)  # deepcopy's memo: what it holds is not copied
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher.eval()


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Teacher <- momentum * teacher + (1 - momentum) * student, for the parameters that the student trains."""
    teacher_parameters = dict(teacher.named_parameters())
    names = trainable_names(student)
    params = dict(student.named_parameters())
    torch._foreach_lerp_([teacher_parameters[n] for n in names], [params[n] for n in names], 1.0 - momentum)
