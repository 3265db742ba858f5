"""The projection head of DINO and iBOT: three layers to a bottleneck, then cosine to the prototypes.

DINOv2 (arXiv 2304.07193) puts a weight norm whose gain is 1 on the last layer; here the prototypes are normalised in
`forward`, which is the same function without a gain that could drift.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize


class ProjectionHead(nn.Module):
    """Features (n, F) to prototype logits (n, K), cosines in [-1, 1]."""

    def __init__(self, features: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        """Truncated normal weights of deviation .02, as DINOv2."""
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(features, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """Cosine of each projected feature to each prototype."""
        projected = self.mlp(features)
        # float32 norms: 1e-12 vanishes in half precision
        return linear(normalize(projected.float(), dim=-1).to(projected.dtype), normalize(self.prototypes, dim=-1))
