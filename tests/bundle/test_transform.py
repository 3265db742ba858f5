import numpy as np
import pytest
from PIL import Image

from natix_lib.bundle.transform import Transform, at_most_shorter_side, upright_rgb
from natix_lib.errors import ContractError

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


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = bars().convert("L").convert("I").convert("I;16") if mode == "I;16" else bars().convert(mode)
    assert upright_rgb(image).mode == "RGB"


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    image = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    assert np.asarray(upright_rgb(image)).max() == 0x80


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


def test_the_document_is_read_back_and_another_version_refused() -> None:
    assert Transform.from_document(WIDE.document()) == WIDE
    with pytest.raises(ContractError, match="transform must be natix-eval version 1, got 'natix-eval' version 2"):
        Transform.from_document({**WIDE.document(), "version": 2})
    with pytest.raises(ContractError, match="malformed"):
        Transform.from_document({**WIDE.document(), "surplus": 1})
