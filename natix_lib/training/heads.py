"""The kinds of heads: what stands between the standardised features and the last, linear layer.

A head is named by the config (`model.head_type`) and by classifier.json (`head.type`), both of them `HeadType`, and
built here. Its hidden layers may change the width; dropout and the linear layer follow them in every head.
"""

from collections.abc import Callable

from torch import nn

from natix_lib.documents import HeadType

Hidden = tuple[nn.Module, int]


def _linear(width: int) -> Hidden:
    return nn.Identity(), width


def _mlp(width: int) -> Hidden:
    return nn.Sequential(nn.Linear(width, width), nn.GELU()), width


# For each name the builder of hidden layers: features of a width F to layers (n, F) -> (n, H), and H.
HEADS: dict[HeadType, Callable[[int], Hidden]] = {"linear": _linear, "mlp": _mlp}
