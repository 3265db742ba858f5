"""The classifier: a ViT backbone, CLS token beside the mean patch token, and a small head.

CLS plus mean patch is the DINOv2 and DINOv3 linear-probe protocol. The head first standardises the features with the
statistics of TRAIN (the affine-free batch norm of the MAE and MoCo v3 protocols, but computed once and exactly), so
that one learning rate serves backbones whose features have very different scales.
"""

from typing import Any

import torch
from torch import Tensor, nn

from natix_lib.backbones.loading import build_backbone, prefix_tokens


class Head(nn.Module):
    """Standardise, drop, classify: features (n, F) to logits (n, C)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, classes: int, kind: str, dropout: float) -> None:
        """A `linear` or `mlp` head with identity standardisation; see `standardise`."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.hidden = nn.Sequential(nn.Linear(features, features), nn.GELU()) if kind == "mlp" else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, classes)
        nn.init.normal_(self.linear.weight, std=0.01)  # DINOv2 linear evaluation
        nn.init.zeros_(self.linear.bias)

    def standardise(self, features: Tensor) -> None:
        """Take mean and spread from TRAIN features (n, F); a constant feature is left unscaled."""
        std, mean = torch.std_mean(features.double(), dim=0, correction=0)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(std > 1e-6, 1.0 / std.clamp_min(1e-6), torch.ones_like(std)))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, C) of features (n, F)."""
        logits: Tensor = self.linear(self.dropout(self.hidden((features - self.mean) * self.scale)))
        return logits


class Classifier(nn.Module):
    """Backbone and head: pixels (n, 3, S, S) to logits (n, C)."""

    def __init__(self, backbone: nn.Module, classes: int, kind: str = "linear", dropout: float = 0.0) -> None:
        """Put an untrained head on `backbone`."""
        super().__init__()
        self.backbone = backbone
        config: Any = backbone.config
        self.prefix = prefix_tokens(config)
        self.head = Head(2 * int(config.hidden_size), classes, kind, dropout)

    @classmethod
    def from_description(cls, config: dict[str, Any], head: dict[str, Any], classes: int) -> "Classifier":
        """An untrained classifier of a stored description, for weights that are loaded strictly next."""
        return cls(build_backbone(config), classes, head["type"], head["dropout"]).eval()

    def features(self, pixels: Tensor) -> Tensor:
        """CLS and mean patch token after the final norm, float32 (n, 2 hidden_size)."""
        tokens = self.backbone(pixels).last_hidden_state.float()
        return torch.cat([tokens[:, 0], tokens[:, self.prefix :].mean(dim=1)], dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (n, C)."""
        logits: Tensor = self.head(self.features(pixels))
        return logits
