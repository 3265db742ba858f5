"""The classifier: a backbone, the pooling of its tokens, and a small head.

The head first standardises the features with the statistics of TRAIN (the affine-free batch norm of the MAE and MoCo
v3 protocols, but computed once and exactly), so that one learning rate serves backbones whose features have very
different scales.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from natix_lib.backbones.features import Extractor
from natix_lib.backbones.loading import build_backbone
from natix_lib.backbones.pooling import TokenPooling, columns
from natix_lib.documents import CLS_AND_MEAN, HeadType, Pooling
from natix_lib.training.bank import std_mean
from natix_lib.training.heads import HEADS


class Head(nn.Module):
    """Standardise, hidden layers of the head's type, drop, classify: features (n, F) to logits (n, C)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, classes: int, head_type: HeadType, dropout: float) -> None:
        """Build an untrained head with identity standardisation; see `standardise`.

        Args:
            width: The features of an image are F = `width` numbers.
            classes: The logits of an image are C = `classes` numbers, at least 2.
            head_type: The hidden layers are those of `HEADS[head_type]`.
            dropout: This share of the hidden values is dropped in training, in [0, 1).
        """
        super().__init__()
        self.width, self.head_type = width, head_type
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.hidden, hidden_width = HEADS[head_type](width)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_width, classes)
        nn.init.normal_(self.linear.weight, std=0.01)  # DINOv2 linear evaluation
        nn.init.zeros_(self.linear.bias)

    def standardise(self, values: Tensor) -> None:
        """Take mean and spread from TRAIN features (n, F), or (n, V, F) of V views whose mean counts.

        A constant feature is left unscaled.
        """
        std, mean = std_mean(values, self.mean.device)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(std > 1e-6, 1.0 / std.clamp_min(1e-6), torch.ones_like(std)))

    @torch.no_grad()
    def shift_logits(self, shift: Tensor) -> None:
        """Add `shift` (C,) to all logits from now on: the last layer of every head is linear and has a bias."""
        self.linear.bias.add_(shift)

    def forward(self, values: Tensor) -> Tensor:
        """Logits (n, C) of features (n, F)."""
        logits: Tensor = self.linear(self.dropout(self.hidden((values - self.mean) * self.scale)))
        return logits


class Classifier(Extractor):
    """Backbone, pooling and head: pixels (n, 3, S, S) to logits (n, C)."""

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        head_type: HeadType = "linear",
        dropout: float = 0.0,
        pooling: Sequence[Pooling] = CLS_AND_MEAN,
    ) -> None:
        """Put an untrained head on `backbone`."""
        super().__init__(backbone, pooling)
        self.head = Head(self.width, classes, head_type, dropout)

    @classmethod
    def from_description(cls, config: dict[str, Any], head: dict[str, Any], classes: int) -> "Classifier":
        """An untrained classifier of a stored description, for weights that are loaded strictly next."""
        pooling = head.get("pooling", CLS_AND_MEAN)  # of a time that knew no other, and of patches
        return cls(build_backbone(config), classes, head["type"], head["dropout"], pooling).eval()

    def head_description(self) -> dict[str, Any]:
        """What `from_description` makes the head of, and its width."""
        head = self.head
        described = {"type": head.head_type, "features": head.width, "dropout": head.dropout.p}
        return described if self.pooling is None else {**described, "pooling": list(self.pooling.names)}

    def columns(self, pooling: Sequence[Pooling]) -> Tensor:
        """Where the features of some of this classifier's poolings stand among its features, (F,)."""
        return columns(pooling, self.pooling.names if self.pooling is not None else pooling, self.hidden_size)

    def narrowed(self, pooling: Sequence[Pooling], seed: int) -> Head:
        """The head of a classifier that has some of these poolings alone: its first weights under `seed`, standardised.

        It is on the device of this classifier's head, which it leaves as it is, like torch's generator.
        """
        head, taken = self.head, self.columns(pooling).to(self.head.mean.device)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # weights are drawn on the CPU
            made = Head(len(taken), head.linear.out_features, head.head_type, head.dropout.p).to(head.mean.device)
        made.mean.copy_(head.mean[taken])
        made.scale.copy_(head.scale[taken])
        return made

    def narrow(self, pooling: Sequence[Pooling], head: Head) -> None:
        """Keep some of the poolings alone, with a head of `narrowed`."""
        self.pooling, self.head = TokenPooling(self.hidden_size, pooling), head

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (n, C)."""
        logits: Tensor = self.head(self.features(pixels))
        return logits
