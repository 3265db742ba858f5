"""Golden images: drawn, not taken from the data, so that a bundle carries nobody's photographs.

They cover what a preprocessing gets wrong: wide, tall, tiny and large images, EXIF rotation, grey, palette and
transparent modes. The logits recorded for them tie a runtime to the exporter.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = {
    "wide.png": (640, 360, "RGB"),
    "tall.png": (240, 480, "RGB"),
    "tiny.png": (24, 20, "RGB"),
    "large.jpg": (1600, 1200, "RGB"),
    "rotated.jpg": (400, 300, "RGB"),
    "grey.png": (320, 320, "L"),
    "palette.png": (320, 240, "P"),
    "transparent.png": (300, 260, "RGBA"),
}
EXIF_ORIENTATION, ROTATED_90 = 0x0112, 6


def draw_golden_images(folder: Path) -> list[str]:
    """Draw the golden images into `folder`; always the same bytes.

    Returns:
        Their file names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, (width, height, mode)) in enumerate(SHAPES.items()):
        generator = np.random.default_rng(seed)
        ramp = np.linspace(0, 1, width)[None, :, None] * np.linspace(1, 0.3, height)[:, None, None]
        pixels = 255 * ramp * generator.uniform(0.3, 1, 3) + generator.normal(0, 12, (height, width, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for _ in range(6):
            x, y = int(generator.integers(0, width)), int(generator.integers(0, height))
            size = int(min(width, height) * generator.uniform(0.1, 0.4))
            colour = tuple(int(v) for v in generator.integers(0, 256, 3))
            draw.polygon([(x, y), (x - size // 2, y + size), (x + size // 2, y + size)], fill=colour)
        if mode == "RGBA":
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        elif mode != "RGB":
            image = image.convert(mode)
        exif = Image.Exif()
        if name == "rotated.jpg":
            exif[EXIF_ORIENTATION] = ROTATED_90
        image.save(folder / name, quality=90, exif=exif) if name.endswith(".jpg") else image.save(folder / name)
    return list(SHAPES)
