import numpy as np
import pytest
from PIL import Image

from natix_lib.data.alignment import Picture, agreement


def street(seed: int) -> Image.Image:
    """Smoothed noise, which has structure everywhere."""
    small = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(320, 240), (32, 32)])
def test_a_moved_copy_agrees_and_a_stranger_does_not(size: tuple[int, int]) -> None:
    moved = street(0).crop((5, 4, 318, 236))
    first, copy, other = (Picture(image.resize(size)) for image in (street(0), moved, street(1)))
    assert agreement(first, 0, copy, 0, mirrored=False).same
    assert not agreement(first, 0, other, 0, mirrored=False).same
    assert not agreement(first, 0, copy, 0, mirrored=True).same


def test_flat_pictures_have_nothing_that_agrees() -> None:
    black = Picture(Image.new("RGB", (64, 64)))
    assert agreement(black, 0, black, 0, mirrored=False).tiles == 0
    assert not agreement(black, 0, black, 0, mirrored=False).same
