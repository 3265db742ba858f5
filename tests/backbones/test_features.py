from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from natix_lib.backbones.features import Extractor
from natix_lib.backbones.loading import load_backbone
from natix_lib.documents import Pooling
from tests.backbones.test_pooling import EXPECTED, Numbers, weighed

PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SIZES = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "patch_size": 8, "image_size": 32}


def backbones(tiny_backbone: Path) -> dict[str, tuple[torch.nn.Module, int]]:
    """Each with its tokens before the patches."""
    torch.manual_seed(0)
    return {
        "dinov3": (load_backbone(tiny_backbone), 5),
        "dinov2": (Dinov2Model(Dinov2Config(**SIZES)).eval(), 1),
        "with registers": (
            Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES, num_register_tokens=2)).eval(),
            3,
        ),
    }


@torch.no_grad()
def tokens_of(backbone: torch.nn.Module) -> Numbers:
    tokens: Numbers = backbone(PIXELS).last_hidden_state.double().numpy()
    return tokens


@pytest.mark.parametrize("family", ["dinov3", "dinov2", "with registers"])
@pytest.mark.parametrize("names", [["cls", "mean"], ["std", "cls", "max"], ["max"]])
def test_poolings_stand_side_by_side_in_their_order_and_count_every_patch_without_registers(
    tiny_backbone: Path, family: str, names: list[Pooling]
) -> None:
    backbone, prefix = backbones(tiny_backbone)[family]
    tokens = tokens_of(backbone)
    assert tokens.shape == (3, prefix + 16, 64)
    extractor = Extractor(backbone, names)
    with torch.no_grad():
        features = extractor.features(PIXELS).numpy()
    assert features.shape == (3, extractor.width) == (3, 64 * len(names))
    assert np.allclose(
        features,
        np.concatenate([EXPECTED[name](tokens[:, 0], tokens[:, prefix:]) for name in names], axis=1),
        atol=1e-6,
    )


def test_without_a_name_features_are_the_class_token_beside_the_mean_of_the_patches(tiny_backbone: Path) -> None:
    backbone = load_backbone(tiny_backbone)
    with torch.no_grad():
        plain, named = (extractor.features(PIXELS) for extractor in (Extractor(backbone), Extractor(backbone, ["cls"])))
    assert plain.shape == (3, 128) and torch.equal(plain[:, :64], named)


@pytest.mark.parametrize("family", ["dinov3", "dinov2", "with registers"])
def test_attentive_features_are_the_tokens_weighed_by_how_they_meet_the_query(tiny_backbone: Path, family: str) -> None:
    backbone, prefix = backbones(tiny_backbone)[family]
    tokens = np.delete(tokens_of(backbone), range(1, prefix), axis=1)
    extractor = Extractor(backbone, ["attentive"])
    assert extractor.pooling is not None and extractor.pooling.query is not None and extractor.width == 64
    with torch.no_grad():
        assert np.allclose(extractor.features(PIXELS).numpy(), tokens.mean(axis=1), atol=1e-6)
        extractor.pooling.query.copy_(torch.linspace(-2, 3, 64))
        features = extractor.features(PIXELS).numpy()
    weights, expected = weighed(tokens, np.linspace(-2, 3, 64))
    assert weights.max() > 1.5 / 17  # it does weigh
    assert np.allclose(features, expected, atol=1e-5)
