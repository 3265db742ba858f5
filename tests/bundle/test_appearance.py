import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import convolve

from natix_lib.bundle.appearance import appearance, quantiles


def test_brightness_pixels_and_sharpness_are_what_scipy_gives() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (12, 17), dtype=np.uint8)
    laplacian = convolve(grey.astype(float), np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]))[1:-1, 1:-1]
    assert appearance(Image.fromarray(grey)) == pytest.approx((grey.mean(), 12 * 17, laplacian.var()), rel=1e-5)


def test_a_blurred_image_is_less_sharp_and_a_tiny_one_has_no_sharpness() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    assert appearance(image.filter(ImageFilter.GaussianBlur(2)))[2] < 0.1 * appearance(image)[2]
    assert appearance(image.resize((2, 9)))[2] == 0.0


def test_quantiles_are_of_each_number_alone() -> None:
    images = [(float(i), 100.0, 2.0 * i) for i in range(101)]
    assert quantiles(images) == {
        "brightness": [5.0, 50.0, 95.0], "pixels": [100.0] * 3, "sharpness": [10.0, 100.0, 190.0],
    }  # fmt: skip
