from pathlib import Path

import pytest
from PIL import Image

from natix_lib.bundle.golden import SHAPES, draw_golden_images
from natix_lib.transform import Transform


def test_the_same_images_are_drawn_every_time(tmp_path: Path) -> None:
    first, second = (draw_golden_images(tmp_path / name) for name in ("a", "b"))
    assert first == second == list(SHAPES)
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_every_golden_image_passes_through_the_transform(tmp_path: Path, name: str) -> None:
    draw_golden_images(tmp_path)
    with Image.open(tmp_path / name) as image:
        pixels = Transform(32, 64, True, (0.5,) * 3, (0.5,) * 3)(image)
    assert pixels.shape == (3, 3, 32, 32) and pixels.std() > 0.05
