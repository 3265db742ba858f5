"""How the tokens of a ViT become the features of an image.

Poolings are put side by side: the CLS token, and the mean, the maximum and the standard deviation of each channel over
the patch tokens; registers are left out. CLS beside the mean is the linear-probe protocol of DINOv2 (Oquab et al.,
arXiv 2304.07193) and DINOv3.

Attentive pooling stands alone. A learnt query weighs the CLS token and the patch tokens by a softmax, and the features
are their weighted mean: the efficient probe of Psomas et al. (arXiv 2506.10178) with one query and without its
projection of values, as a linear head follows. The query meets tokens that are brought to mean 0 and variance 1 over
their channels, so that one learning rate serves backbones of different scales. It begins at 0, where the features are
the mean of all tokens: the head is standardised by these, and labels are doubted by them.

What the query learns changes the features, so they cannot be computed once: with a frozen backbone, too, each epoch is
a pass over the pixels. Tokens in the cache instead were rejected: an image has 197 of them at 224 pixels, a hundred
times the features of CLS and mean, so that they would fit for small data sets alone.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from natix_lib.documents import CLS_AND_MEAN, Pooling

# Of a CLS token (n, D) and patch tokens (n, P, D) to (n, D).
PLAIN: dict[Pooling, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": lambda cls, patches: cls,
    "mean": lambda cls, patches: patches.mean(dim=1),
    "max": lambda cls, patches: patches.amax(dim=1),
    "std": lambda cls, patches: patches.std(dim=1, correction=0),
}


class TokenPooling(nn.Module):
    """Tokens of a ViT to features (n, F)."""

    def __init__(self, hidden_size: int, names: Sequence[Pooling] = CLS_AND_MEAN) -> None:
        """Pool as named.

        Args:
            hidden_size: A token has D = `hidden_size` numbers.
            names: Names of `PLAIN`, each once, in the order of the features, or `attentive` alone.
        """
        super().__init__()
        self.names, self.width = tuple(names), len(names) * hidden_size
        self.query = nn.Parameter(torch.zeros(hidden_size)) if self.names == ("attentive",) else None

    def forward(self, tokens: Tensor, prefix: int) -> Tensor:
        """Features (n, F) of tokens (n, T, D): CLS first, then registers, `prefix` together, then patches."""
        if self.query is None:
            return torch.cat([PLAIN[name](tokens[:, 0], tokens[:, prefix:]) for name in self.names], dim=1)
        looked_at = torch.cat([tokens[:, :1], tokens[:, prefix:]], dim=1)
        size = looked_at.shape[-1]
        weights = torch.softmax(layer_norm(looked_at, (size,)) @ self.query / size**0.5, dim=1)
        return (weights[..., None] * looked_at).sum(dim=1)


def side_by_side(tried: Iterable[Sequence[Pooling]]) -> tuple[Pooling, ...]:
    """The poolings that several features are made of, each once; those of a single one in its own order."""
    distinct = list(dict.fromkeys(tuple(names) for names in tried))
    if len(distinct) == 1:
        return distinct[0]
    return tuple(name for name in PLAIN if any(name in names for names in distinct))


def columns(names: Sequence[Pooling], among: Sequence[Pooling], hidden_size: int) -> Tensor:
    """Where the features of `names` stand in those of `among`, (F,), all of which have D = `hidden_size` columns."""
    firsts = torch.tensor([among.index(name) * hidden_size for name in names])
    return (firsts[:, None] + torch.arange(hidden_size)).flatten()
