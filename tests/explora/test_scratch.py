"""Pre-training from random weights, the patch embedding among them."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from natix_lib.explora.adapters import train_all
from natix_lib.explora.run import Feed, adapt_backbone
from tests.explora.small import NORMAL, small

WAVES = (0.15, 0.4, 0.8, 1.5)  # radians a pixel


class Gratings:
    """Waves of several lengths and directions in two colours."""

    def __init__(self, n: int = 256) -> None:
        self.ids = [str(i) for i in range(n)]

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Image.Image:
        generator = np.random.default_rng(index)
        y, x = np.mgrid[:40, :40]
        angle, phase = generator.uniform(0, np.pi), generator.uniform(0, 2 * np.pi)
        wave = np.sin(WAVES[index % 4] * (x * np.cos(angle) + y * np.sin(angle)) + phase)
        pixels = generator.uniform(40, 215, 3) + wave[..., None] * generator.uniform(-70, 70, 3)
        return Image.fromarray(np.clip(pixels + generator.normal(0, 5, (40, 40, 3)), 0, 255).astype(np.uint8))


def random_backbone() -> DINOv3ViTModel:
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=128,
        num_register_tokens=2,
        patch_size=8,
        image_size=32,
    )
    return DINOv3ViTModel(config).eval()


def test_all_weights_train_from_scratch_and_none_is_an_adapter() -> None:
    backbone = random_backbone()
    names = train_all(backbone)
    assert names == [name for name, _ in backbone.named_parameters()] and not any("lora" in name for name in names)


@pytest.mark.slow
def test_from_scratch_the_dino_loss_falls_below_that_of_a_uniform_guess() -> None:
    """A student that cannot tell the images apart is at the log of the number of prototypes, or above."""
    backbone = random_backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    settings = small(
        steps=150,
        batch_size=32,
        device_batch_size=32,
        prototypes=64,
        lr=0.01,
        teacher_momentum=0.99,
        from_scratch=True,
    )
    adapted = adapt_backbone(backbone, Feed(Gratings(), 32, *NORMAL), settings)
    dino = [row["dino"] for row in adapted.history]
    assert dino[0] > math.log(64) and np.mean(dino[-20:]) < math.log(64) - 0.1
    assert adapted.counts[0] == adapted.counts[1]
    for name in ("embeddings.patch_embeddings.weight", "embeddings.register_tokens"):
        assert not torch.equal(adapted.state[name], before[name])
