import numpy as np
import pytest
from PIL import Image, ImageOps

from natix_lib.data.windows import COLUMNS, MIRROR, ROWS, WINDOWS, borders, placing, window_hashes


def hashes(image: Image.Image) -> np.ndarray:
    content = window_hashes(image)
    assert content is not None
    return np.frombuffer(content, "<u8")


def noise(seed: int = 0, width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8))


def test_the_first_hash_has_the_signs_of_the_lowest_frequencies() -> None:
    """Against the definition of the cosine transform; integrals over squares are its samples but for a factor."""
    grey = np.asarray(noise(), dtype=float)
    basis = np.cos(np.pi * (2 * np.arange(64) + 1) * np.arange(10)[:, None] / 128)
    low = (basis @ grey @ basis.T)[ROWS, COLUMNS]
    assert int(hashes(noise())[0]) == int("".join("1" if value > 0 else "0" for value in low), 2)


def test_mirroring_flips_known_bits() -> None:
    first, mirrored = hashes(noise()), hashes(ImageOps.mirror(noise()))
    assert int(first[0]) ^ MIRROR == int(mirrored[0])


@pytest.mark.parametrize("slot", range(1, len(WINDOWS) - 2))
def test_a_crop_has_the_hash_of_its_window(slot: int) -> None:
    picture = noise(width=40, height=40).resize((400, 400), Image.Resampling.BICUBIC)
    left, top, right, bottom = WINDOWS[slot].box
    crop = picture.crop((round(400 * left), round(400 * top), round(400 * right), round(400 * bottom)))
    assert (int(hashes(crop)[0]) ^ int(hashes(picture)[slot])).bit_count() <= 4


def test_a_window_is_placed_where_it_lies() -> None:
    corners = placing(1, (0.0, 0.0, 1.0, 1.0), (300, 200)) @ np.array([[0, 1], [0, 1], [1, 1]])
    assert corners.T.tolist() == pytest.approx(np.array([[0.05, 0.05], [0.95, 0.95]]))
    framed = placing(len(WINDOWS), (0.0, 0.25, 1.0, 0.75), (300, 200)) @ np.array([0, 0, 1])
    assert framed.tolist() == pytest.approx([0, 0.25])


def test_even_borders_at_opposite_sides_are_cut_off_and_a_bright_sky_is_not() -> None:
    framed = ImageOps.expand(noise(width=128, height=64), (0, 32), fill=255)
    assert borders(framed) == (0.0, 0.25, 1.0, 0.75)
    assert len(hashes(framed)) == 2 * len(WINDOWS)
    sky = Image.new("L", (128, 96), 255)
    sky.paste(noise(width=128, height=64), (0, 32))
    assert borders(sky) == (0.0, 0.0, 1.0, 1.0) and len(hashes(sky)) == len(WINDOWS)


def test_a_picture_without_structure_has_no_hash() -> None:
    assert window_hashes(Image.new("RGB", (64, 64), (90, 90, 90))) is None
