import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from scipy.ndimage import gaussian_filter

from natix_lib.training import augment
from natix_lib.training.augment import finished
from natix_lib.training.jpeg import tables
from natix_lib.training.profiles import (
    BRIGHTNESS,
    CONTRAST,
    FLIP,
    QUALITY,
    SATURATION,
    SIGMA,
    STREET,
    UNCHANGED,
    Cuts,
    Profile,
)
from natix_lib.transform import Transform, resized

PLAIN = Transform(64, 64, False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CPU = torch.device("cpu")


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """Draws noise of a size; here too, as mutants are run without the tests' conftest."""

    def draw(width: int, height: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))

    return draw


def levels(image: Image.Image, changes: dict[int, float]) -> np.ndarray:
    """Grey levels (S, S, 3) of an image after its numbers."""
    pixels = np.dstack([np.asarray(image), np.zeros(image.size[::-1], dtype=np.uint8)])
    numbers = torch.tensor([UNCHANGED])
    for place, value in changes.items():
        numbers[0, place] = value
    transform = Transform(image.width, image.width, False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return 255 * finished(torch.from_numpy(pixels)[None], numbers, transform, CPU)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.0, 1.4])
@pytest.mark.parametrize(
    ("place", "enhance"),
    [(BRIGHTNESS, ImageEnhance.Brightness), (CONTRAST, ImageEnhance.Contrast), (SATURATION, ImageEnhance.Color)],
)
def test_light_is_changed_as_pillow_changes_it_but_for_its_rounding(
    picture, place: int, enhance, factor: float
) -> None:
    """Pillow rounds what it blends with and cuts off what is behind the comma: up to a grey level and a half."""
    image = picture(64, 64).point(lambda level: level * 3 // 5)
    expected = np.asarray(enhance(image).enhance(factor), dtype=float)
    assert np.abs(levels(image, {place: factor}) - expected).max() <= 1.5


def test_a_batch_that_is_done_in_parts_is_changed_by_its_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(0, 256, (5, 16, 16, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    numbers = torch.tensor([UNCHANGED]) + torch.arange(5)[:, None] * torch.tensor([0, 0.1, -0.1, 0.2, 0.3, 20.0])
    whole = finished(pixels, numbers, PLAIN, CPU)
    monkeypatch.setattr(augment, "IN_CACHE", 2 * 16 * 16 * 4)
    assert torch.equal(finished(pixels, numbers, PLAIN, CPU), whole)


def test_a_mirrored_view_is_the_mirrored_picture(picture) -> None:
    image = picture(64, 64)
    assert np.abs(levels(image, {FLIP: 1}) - np.asarray(ImageOps.mirror(image), dtype=float)).max() < 1e-3


@pytest.mark.parametrize(("side", "sigma", "radius"), [(224, 1.3, 4), (56, 2.0, 1)])
def test_blur_is_scipys_with_a_deviation_that_goes_with_the_side(picture, side: int, sigma: float, radius: int) -> None:
    image = picture(side, side)
    pixels = np.asarray(image, dtype=float)
    expected = gaussian_filter(pixels, (sigma * side / 224,) * 2, radius=radius, mode="nearest", axes=(0, 1))
    assert np.abs(levels(image, {SIGMA: sigma}) - expected).max() < 1e-2


@pytest.mark.parametrize("quality", [10, 49, 50, 75, 100])
@pytest.mark.parametrize("side", [64, 61])
def test_compression_is_that_of_libjpeg(picture, quality: int, side: int) -> None:
    image = picture(12, 12).resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    buffer.seek(0)
    decoded = JpegImageFile(buffer)
    y, chroma = (np.reshape(decoded.quantization[number], (8, 8)) for number in (0, 1))
    assert np.array_equal(tables(torch.tensor([float(quality)]))[0].numpy(), [y, chroma, chroma])
    expected = np.asarray(decoded, dtype=float)
    difference = np.abs(levels(image, {QUALITY: quality}) - expected)
    assert difference.mean() < 0.6 and np.median(difference) <= 1
    if quality <= 75:  # what differs are a few coefficients in the middle between two steps
        assert difference.mean() < 0.15 * np.abs(np.asarray(image, dtype=float) - expected).mean()


def test_a_whole_picture_stands_between_black_bars(picture) -> None:
    wide = picture(96, 48)
    pixels, _ = Cuts(wide, PLAIN).cut(Profile("bars", 1, (1.0, 1.0), letterbox=1.0), np.random.default_rng(0))
    assert not pixels[:16].any() and not pixels[48:].any()
    assert np.array_equal(pixels[16:48, :, :3], np.asarray(resized(wide, (64, 32), (0, 0, 96, 48))))


def test_crops_have_the_area_and_shape_of_the_profile_and_come_from_everywhere() -> None:
    """A picture whose colours tell places: red rises from left to right, green from top to bottom."""
    ramp = np.zeros((200, 200, 3), dtype=np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(200), np.arange(200)[:, None]
    cuts = Cuts(Image.fromarray(ramp), Transform(32, 200, False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    generator = np.random.default_rng(0)
    corners = []
    for _ in range(300):
        crop = cuts.cut(STREET, generator)[0].astype(float)
        left, right, top, bottom = (
            crop[:, 0, 0].mean(),
            crop[:, -1, 0].mean(),
            crop[0, :, 1].mean(),
            crop[-1, :, 1].mean(),
        )
        corners.append((left, (right - left) * 32 / 31, top, (bottom - top) * 32 / 31))
    left, width, top, height = np.array(corners).T
    areas, ratios = width * height / 200**2, width / height
    assert 0.37 < areas.min() < 0.44 and 0.9 < areas.max() < 1.03
    assert 0.7 < ratios.min() < 0.8 and 1.25 < ratios.max() < 1.4
    assert left.min() < 5 and (left + width).max() > 193 and top.min() < 5 and (top + height).max() > 193


def test_the_numbers_of_a_view_are_those_of_the_profile(picture) -> None:
    cuts = Cuts(picture(64, 64), PLAIN)
    profile = Profile("much", 1, (0.5, 1.0), jitter=0.4, blur=0.5, jpeg=0.25)
    numbers = np.stack([cuts.cut(profile, np.random.default_rng(seed))[1] for seed in range(800)])
    light = numbers[:, BRIGHTNESS : SATURATION + 1]
    assert 0.6 <= light.min() < 0.61 and 1.39 < light.max() <= 1.4
    shares = (numbers[:, [FLIP, SIGMA, QUALITY]] > 0).mean(axis=0)
    assert np.abs(shares - [0.5, 0.5, 0.25]).max() < 0.06
    assert numbers[:, QUALITY].max() <= 90 and set(numbers[:, QUALITY] % 1) == {0}
