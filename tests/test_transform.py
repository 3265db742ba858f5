import numpy as np
import pytest
from PIL import Image, ImageFilter

from natix_lib import transform as transform_module
from natix_lib.errors import ContractError, DataError
from natix_lib.transform import Transform, at_most_shorter_side, resized, upright_rgb

PLAIN = Transform(32, 64, False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
WIDE = Transform(32, 64, True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def bars() -> Image.Image:
    """Red, green and blue thirds, 96 x 32."""
    image = Image.new("RGB", (96, 32))
    for index, colour in enumerate(("red", "lime", "blue")):
        image.paste(colour, (32 * index, 0, 32 * index + 32, 32))
    return image


def test_the_centre_view_is_the_centre_square() -> None:
    (view,) = PLAIN(bars())
    assert view.shape == (3, 32, 32) and view.dtype == np.float32
    assert np.array_equal(view.mean(axis=(1, 2)), [0, 1, 0])


def test_multiview_covers_both_ends_of_a_wide_image() -> None:
    views = WIDE(bars())
    assert np.array_equal(views.mean(axis=(2, 3)), np.eye(3))


def test_multiview_covers_both_ends_of_a_tall_image() -> None:
    views = WIDE(bars().transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(views.mean(axis=(2, 3)), np.eye(3))


def test_normalisation_is_that_of_the_hub_processor() -> None:
    transform = Transform(32, 64, False, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    (view,) = transform(Image.new("RGB", (50, 40), (255, 128, 0)))
    expected = [(1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, -0.406 / 0.225]
    assert np.allclose(view.mean(axis=(1, 2)), expected, atol=1e-5)


def test_a_rotated_photograph_is_seen_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = bars().transpose(Image.Transpose.ROTATE_90)
    turned.info["exif"] = exif.tobytes()
    assert np.array_equal(np.asarray(upright_rgb(turned)), np.asarray(bars()))


@pytest.mark.parametrize("broken", [b"Exif\0\0nothing", b"", b"Exif\0\0MM\0*\xff\xff\xff\xff", "text", 7])
def test_broken_exif_is_ignored(broken: object) -> None:
    image = bars()
    image.info["exif"] = broken
    assert np.array_equal(np.asarray(upright_rgb(image)), np.asarray(bars()))
    image = bars()
    image.info = {"Raw profile type exif": "\nexif\n4\nzz"}
    assert np.array_equal(np.asarray(upright_rgb(image)), np.asarray(bars()))


def test_an_upright_rgb_image_is_not_copied_and_a_turned_one_not_turned_again() -> None:
    image = bars()
    assert upright_rgb(image) is image
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = bars()
    turned.info["exif"] = exif.tobytes()
    once = upright_rgb(turned)
    assert once.size == (32, 96) and upright_rgb(once) is once


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16", "F", "I"])
def test_a_picture_made_rgb_band_by_band_is_the_same(picture, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(50, 41)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200) if mode == "I;16" else image
    image = image if mode in ("RGBA", "I;16") else image.convert("L").convert(mode)
    whole = np.asarray(upright_rgb(image))
    monkeypatch.setattr(transform_module, "BAND_PIXELS", 101)
    assert np.array_equal(np.asarray(upright_rgb(image)), whole)


def test_a_picture_is_refused_before_it_is_scaled_to_more_than_a_picture() -> None:
    assert WIDE(Image.new("RGB", (2, 100))).shape == (3, 3, 32, 32)
    with pytest.raises(DataError, match="2 x 101 pixels: the longer side may be at most 50 times the shorter"):
        WIDE(Image.new("RGB", (2, 101)))
    with pytest.raises(DataError, match="400000 x 1 pixels"):
        PLAIN(Image.new("L", (400_000, 1)))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16", "La", "PA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    between = {"I;16": "I", "La": "LA", "PA": "P"}
    image = bars().convert("L").convert(between[mode]).convert(mode) if mode in between else bars().convert(mode)
    assert upright_rgb(image).mode == "RGB"


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    image = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    assert np.asarray(upright_rgb(image)).max() == 0x80


def test_samples_of_32_bits_are_scaled_from_black_to_white() -> None:
    share = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    expected = np.rint(share * 255).astype(np.uint8)
    for samples in (share, share * 65_535, share * 3 - 2, (share * 630_000).astype(np.int32)):
        grey = np.asarray(upright_rgb(Image.fromarray(samples)))[..., 0]
        assert np.abs(grey.astype(int) - expected).max() <= 1
    half = np.asarray(upright_rgb(Image.fromarray(share / 2)))[..., 0]
    assert np.abs(half - share * 127.5).max() <= 0.51
    with pytest.raises(DataError, match="infinite or not a number"):
        upright_rgb(Image.fromarray(np.full((2, 2), np.nan, np.float32)))


def test_transparent_pixels_are_white() -> None:
    assert np.array_equal(np.asarray(upright_rgb(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))), np.full((2, 2, 3), 255))


def test_images_are_reduced_but_never_enlarged_for_storage() -> None:
    assert at_most_shorter_side(Image.new("RGB", (400, 200)), 100).size == (200, 100)
    assert at_most_shorter_side(Image.new("RGB", (40, 20)), 100).size == (40, 20)
    assert at_most_shorter_side(Image.new("RGB", (1, 5000)), 100).size == (1, 5000)


def test_an_original_and_its_stored_copy_look_the_same(picture) -> None:
    original = picture(300, 200)
    stored = at_most_shorter_side(original, 64)
    assert np.array_equal(PLAIN(original), PLAIN(stored))


@pytest.mark.parametrize("copied", [2**24, 0])
def test_resizing_is_pillows_bicubic_filter(picture, monkeypatch: pytest.MonkeyPatch, copied: int) -> None:
    monkeypatch.setattr(transform_module, "MAX_COPIED", copied)
    image = picture(300, 200).filter(ImageFilter.GaussianBlur(2))
    for size, box in (((96, 64), (0, 0, 300, 200)), ((64, 64), (13, 7, 190, 181)), ((450, 300), (0, 0, 300, 200))):
        expected = image.resize(size, Image.Resampling.BICUBIC, box=box)
        difference = np.asarray(resized(image, size, box), float) - np.asarray(expected, float)
        assert np.abs(difference).mean() < 0.5 and np.abs(difference).max() <= 4


def test_a_much_larger_image_is_averaged_first_and_keeps_its_place() -> None:
    ramp = Image.linear_gradient("L").resize((803, 403)).convert("RGB")
    small = np.asarray(resized(ramp, (40, 20), (0, 0, 803, 403)), float)[..., 0]
    assert np.abs(small[:, 20] - (np.arange(20) + 0.5) * 12.8).max() < 2


def test_the_document_is_read_back_and_another_version_refused() -> None:
    assert Transform.from_document(WIDE.document()) == WIDE
    with pytest.raises(ContractError, match="transform must be natix-eval version 2, got 'natix-eval' version 1"):
        Transform.from_document({**WIDE.document(), "version": 1})
    with pytest.raises(ContractError, match="malformed"):
        Transform.from_document({**WIDE.document(), "surplus": 1})
