"""What a backbone says of a picture: its tokens, pooled as `backbones/pooling.py` tells.

`patches` has a pooling of its own and gives its numbers as they are. The classifier's head stands on these features,
and the probe before and after adaptation measures those of CLS and mean.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from natix_lib.backbones.loading import prefix_tokens
from natix_lib.backbones.patches import Patches
from natix_lib.backbones.pooling import TokenPooling
from natix_lib.documents import CLS_AND_MEAN, Pooling


class Extractor(nn.Module):
    """A backbone and the pooling of its tokens."""

    def __init__(self, backbone: nn.Module, pooling: Sequence[Pooling] = CLS_AND_MEAN) -> None:
        """Put a pooling on what `load_backbone` or `build_backbone` gives; `patches` takes none."""
        super().__init__()
        config: Any = backbone.config
        self.backbone, self.hidden_size = backbone, int(config.hidden_size)
        self.pooling = None if isinstance(backbone, Patches) else TokenPooling(self.hidden_size, pooling)

    @property
    def width(self) -> int:
        """F, how many numbers an image has."""
        return self.pooling.width if self.pooling is not None else self.hidden_size

    def features(self, pixels: Tensor) -> Tensor:
        """Features of images, of a ViT after its final norm.

        Args:
            pixels: The images are normalised, (n, 3, S, S), on the backbone's device.

        Returns:
            float32 (n, F).
        """
        if self.pooling is None:
            of_patches: Tensor = self.backbone(pixels)
            return of_patches
        pooled: Tensor = self.pooling(self.backbone(pixels).last_hidden_state.float(), self._prefix)
        return pooled

    @property
    def _prefix(self) -> int:
        config: Any = self.backbone.config
        return prefix_tokens(config)
