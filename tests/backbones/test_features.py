from pathlib import Path

import numpy as np
import torch
from transformers import Dinov2Config, Dinov2Model

from natix_lib.backbones.features import feature_width, image_features
from natix_lib.backbones.loading import load_backbone

PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_features_are_the_class_token_beside_the_mean_of_the_patches_without_registers(tiny_backbone: Path) -> None:
    backbone = load_backbone(tiny_backbone)
    with torch.no_grad():
        tokens = backbone(PIXELS).last_hidden_state.numpy()
        features = image_features(backbone, PIXELS).numpy()
    assert tokens.shape == (3, 1 + 4 + 16, 64) and features.shape == (3, feature_width(backbone))
    assert np.array_equal(features[:, :64], tokens[:, 0])
    assert np.allclose(features[:, 64:], tokens[:, 5:].sum(axis=1) / 16, atol=1e-6)


def test_features_of_a_backbone_without_registers_count_every_patch() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "patch_size": 8, "image_size": 32}
    backbone = Dinov2Model(Dinov2Config(**sizes)).eval()
    with torch.no_grad():
        tokens = backbone(PIXELS).last_hidden_state.numpy()
        features = image_features(backbone, PIXELS).numpy()
    assert tokens.shape == (3, 1 + 16, 64)
    assert np.allclose(features[:, 64:], tokens[:, 1:].mean(axis=1), atol=1e-6)
