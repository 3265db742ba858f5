"""Which weights of a backbone are tuned, and the optimiser and schedule that tune them.

All weights, the last blocks, or LoRA on q and v of every block (ExPLoRA's second half, Khanna et al., arXiv 2406.10973:
adapt first, then tune with LoRA). Rates may fall with the distance from the head, as in ELECTRA and BEiT (Bao et al.,
arXiv 2106.08254): the head and the final norm have the rate itself, the last block has `layer_decay` times it, and
the embeddings have `layer_decay` to the power of the number of blocks and one.

With every key at its default this is AdamW on one group and a cosine to zero, bit for bit. Norms, the CLS token and
the mask token do not train beside LoRA, as in LoRA's paper; ExPLoRA trains them in adapt, where the domain changes.
torch.compile was left out: whether it gains anything was not measured.
"""

import math
from typing import Any

import torch
from torch import nn

from natix_lib.backbones.lora import block_of, depth_of, inject_lora, merge_lora
from natix_lib.config import FineTune, Optimizer
from natix_lib.errors import ConfigError


def begin_tuning(backbone: nn.Module, fine_tune: FineTune, seed: int) -> None:
    """Set which weights of a backbone train, and put LoRA into it where that is the method; see `end_tuning`.

    Args:
        backbone: A loaded ViT; changed in place.
        fine_tune: The method and its sizes.
        seed: Decides LoRA's first matrices, alike on every process; torch's generator is left as it was.

    Raises:
        ConfigError: If the backbone has fewer blocks than shall be tuned, no q and v for LoRA, or cannot
            compute activations twice.
    """
    depth = depth_of(backbone)
    backbone.requires_grad_(fine_tune.method == "all")
    if fine_tune.method == "lora":
        if not depth:
            raise ConfigError(
                "training.fine_tune.method lora needs a backbone with transformer blocks, this one has none"
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            inject_lora(backbone, fine_tune.lora_rank, fine_tune.lora_alpha, depth)
    elif fine_tune.method == "blocks":
        if fine_tune.blocks > depth:
            raise ConfigError(
                f"training.fine_tune.blocks must be at most {depth}, the backbone's blocks, got {fine_tune.blocks}"
            )
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(_level(name, depth) > depth - fine_tune.blocks)
    if fine_tune.gradient_checkpointing:
        recomputed: Any = backbone
        if not getattr(recomputed, "supports_gradient_checkpointing", False):
            raise ConfigError(
                "training.fine_tune.gradient_checkpointing: this backbone cannot compute activations twice"
            )
        recomputed.activation_checkpointing_enable({"use_reentrant": False})


def end_tuning(backbone: nn.Module) -> None:
    """Make a tuned backbone one plain model again: LoRA is added into its weights, activations are kept."""
    merge_lora(backbone)
    plain: Any = backbone
    if getattr(plain, "is_activation_checkpointing", False):
        plain.activation_checkpointing_disable()


def adamw(model: nn.Module, settings: Optimizer, layer_decay: float = 1.0) -> torch.optim.AdamW:
    """AdamW on the trainable parameters of a head, or of a classifier whose backbone is tuned.

    Args:
        model: Names of parameters of a backbone hold `backbone.`; all others are the head's.
        settings: Highest rate, weight decay, and what decays.
        layer_decay: Rate of a block as a share of the next one's, in (0, 1].

    Returns:
        The optimiser, whose groups differ in rate or decay; the largest rate is `settings.lr`. On CUDA it is fused.
    """
    depth = depth_of(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            level = _level(name, depth) if "backbone." in name else depth + 1
            decays = settings.decayed == "all" or _is_matrix(name, parameter)
            key = (settings.lr * layer_decay ** (depth + 1 - level), settings.weight_decay if decays else 0.0)
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": group, "lr": lr, "weight_decay": decay} for (lr, decay), group in groups.items()],
        fused=True if next(model.parameters()).is_cuda else None,
    )


def rate(step: int, total: int, warmup: float) -> float:
    """Share of the highest learning rate at a step: it rises linearly, then falls to zero as half a cosine.

    Args:
        step: Number of the optimiser step, 0 <= step <= total.
        total: Steps of the whole training, at least 1.
        warmup: Share of the steps in which it rises, in [0, 1].

    Returns:
        A share in [0, 1]; the first step of a rise is not 0, as it would be lost.
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))


def _level(name: str, depth: int) -> int:
    """0 for the embeddings, 1 for the first block, `depth` for the last, one more for what follows the blocks."""
    block = block_of(name)
    if block is not None:
        return block + 1
    return 0 if "embeddings." in name else depth + 1


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether it multiplies something, unlike norms, biases, layer scales, tokens and positions."""
    return parameter.ndim > 1 and not name.endswith(("_token", "_tokens", "position_embeddings"))
