"""A small adaptation: pictures in memory, a small backbone, a few steps."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from natix_lib.backbones.loading import load_backbone
from natix_lib.config import Explora
from natix_lib.explora.run import Adapted, Feed, adapt_backbone

NORMAL = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Pictures:
    """Noisy pictures of several sizes."""

    def __init__(self, n: int = 40) -> None:
        self.ids = [str(i) for i in range(n)]

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Image.Image:
        generator = np.random.default_rng(index)
        shade = generator.integers(0, 256, 3)
        pixels = np.clip(shade + generator.normal(0, 30, (40, 40 + index % 5, 3)), 0, 255).astype(np.uint8)
        return Image.fromarray(pixels)


def small(**changes: Any) -> Explora:
    values = {
        "steps": 4,
        "batch_size": 16,
        "device_batch_size": 8,
        "lr": 0.01,
        "prototypes": 32,
        "head_hidden": 32,
        "head_bottleneck": 16,
        "local_crops": 2,
        "rank": 4,
        "warmup": 0.0,
        "freeze_prototypes": 0.25,
        "checkpoint_every": 1,
        "probe_share": 0.4,
        **changes,
    }
    return Explora(**values)


def feed(**changes: Any) -> Feed:
    return Feed(Pictures(), 32, *NORMAL, **changes)


def adapt(backbone: Path, settings: Explora, workers: int = 0, **others: Any) -> Adapted:
    return adapt_backbone(load_backbone(backbone), feed(num_workers=workers), settings, **others)
