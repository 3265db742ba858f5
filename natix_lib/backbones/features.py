"""What a backbone says of a picture: the CLS token beside the mean patch token.

The DINOv2 and DINOv3 linear-probe protocol; `patches` gives its numbers as they are. The classifier's head stands on
these features, and the probe before and after adaptation measures them.
"""

from typing import Any

import torch
from torch import Tensor, nn

from natix_lib.backbones.loading import prefix_tokens
from natix_lib.backbones.patches import Patches


def image_features(backbone: nn.Module, pixels: Tensor) -> Tensor:
    """CLS and mean patch token after the final norm; of `patches`, its features.

    Args:
        backbone: What `load_backbone` or `build_backbone` gives.
        pixels: The images are normalised, (n, 3, S, S), on the backbone's device.

    Returns:
        float32 (n, F), F as `feature_width` tells.
    """
    if isinstance(backbone, Patches):
        of_patches: Tensor = backbone(pixels)
        return of_patches
    config: Any = backbone.config
    tokens = backbone(pixels).last_hidden_state.float()
    return torch.cat([tokens[:, 0], tokens[:, prefix_tokens(config) :].mean(dim=1)], dim=1)


def feature_width(backbone: nn.Module) -> int:
    """How many numbers `image_features` gives for an image: 2 hidden_size of a ViT."""
    config: Any = backbone.config
    tokens = 1 if isinstance(backbone, Patches) else 2
    return tokens * int(config.hidden_size)
