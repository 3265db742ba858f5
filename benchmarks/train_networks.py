"""Networks of the DINOv3 family's shapes with random weights, and what a step of each costs in FLOP.

FLOP are those of torch's counter on the meta device, where nothing is computed: 2 a multiplication with addition, in
matrix products and attention; a frozen weight costs no gradient.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from natix_lib import config
from natix_lib.backbones.features import Extractor
from natix_lib.explora.adapters import add_adapters
from natix_lib.explora.learner import GLOBAL_CROPS, Learner
from natix_lib.explora.masks import batch_masks
from natix_lib.explora.run import crop_sizes
from natix_lib.training.tuning import begin_tuning

NORMAL = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Size:
    """A network's shape, the images that it computes at once when frozen, tuned and adapted, and ExPLoRA's head."""

    shape: dict[str, Any]
    side: int
    batches: tuple[int, int, int]
    explora: dict[str, Any]


VIT_L = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
VIT_H = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "intermediate_size": 5120}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128, "patch_size": 8}
SIZES = {
    "tiny": Size(TINY, 32, (4, 4, 4), {"prototypes": 64, "head_hidden": 32, "head_bottleneck": 16, "local_crops": 2}),
    "ViT-L": Size(VIT_L, 224, (256, 128, 32), {}),
    "ViT-H+": Size({**VIT_H, "use_gated_mlp": True}, 224, (256, 64, 32), {}),
}


def network(size: Size) -> nn.Module:
    """A DINOv3 ViT with random weights, on torch's default device, in eval mode."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    described = {"patch_size": 16, "num_register_tokens": 4, "image_size": size.side, **size.shape}
    model: nn.Module = DINOv3ViTModel(DINOv3ViTConfig(**described, attn_implementation="sdpa")).eval()
    return model


def explora_of(size: Size, steps: int = 1) -> config.Explora:
    """Settings of adapt steps of one device batch each."""
    batch = size.batches[2]
    return config.parse(
        config.Explora, {"batch_size": batch, "device_batch_size": batch, "steps": steps, **size.explora}
    )


def tuned(model: nn.Module, method: str) -> nn.Module:
    """A network whose weights train by `lora` or `all`; `frozen` trains none."""
    model.requires_grad_(False)
    if method != "frozen":
        begin_tuning(model, config.FineTune.model_validate({"method": method, "lora_rank": 16, "lora_alpha": 16}), 0)
    return model


def flop(size: Size, kind: str) -> float:
    """FLOP an image of a `frozen` forward pass or a `lora`, `all` or `adapt` step; nothing is computed."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        if kind == "adapt":
            _adapt_once(size)
            images = size.batches[2]
        else:
            images = 1
            model = tuned(network(size), kind)
            pixels = torch.empty(images, 3, size.side, size.side)
            with torch.set_grad_enabled(kind != "frozen"):
                features = Extractor(model).features(pixels)
            if kind != "frozen":
                features.sum().backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / images


class _Counted(Learner):
    """A learner on the meta device, of which autocast does not know."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


def _adapt_once(size: Size) -> None:
    settings, model = explora_of(size), network(size)
    add_adapters(model, settings.rank, settings.alpha, settings.unfrozen_blocks)
    sizes = crop_sizes(model.config, size.side)
    learner = _Counted(model, settings, sizes, *NORMAL).train()
    images, cells = size.batches[2], size.side // sizes.patch
    with torch.device("cpu"):
        generator = np.random.default_rng(0)
        drawn = batch_masks(GLOBAL_CROPS * images, cells, cells, settings.mask_share, settings.mask_ratio, generator)
        masks = torch.from_numpy(np.ascontiguousarray(drawn)).flatten(1)
    globally = torch.empty(GLOBAL_CROPS * images, 3, size.side, size.side)
    locally = torch.empty(settings.local_crops * images, 3, sizes.locally, sizes.locally)
    learner.losses(globally, locally, masks)["loss"].backward()  # type: ignore[no-untyped-call]
