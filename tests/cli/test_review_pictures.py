import base64
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from PIL import Image

from natix_lib.cli.review_pictures import LeastConfident, Picture
from natix_lib.data.decode import decode
from natix_lib.errors import DataError


def kept(confidences: list[float], limit: int) -> list[str]:
    """Addresses, numbered, of what is kept."""
    small, least = Image.new("RGB", (8, 8)), LeastConfident(limit)
    for number, confidence in enumerate(confidences):
        least.add(confidence, str(number), small)
    return [asked.address for asked in least.in_order()]


@pytest.mark.parametrize("limit", [1, 2, 7, 40])
def test_the_least_confident_are_kept_in_order_and_the_first_of_equal_ones(limit: int) -> None:
    confidences = np.random.default_rng(limit).integers(50, 70, 40) / 100
    expected = np.argsort(confidences, kind="stable")[:limit]
    assert kept(confidences.tolist(), limit) == [str(number) for number in expected]


def test_no_jpeg_is_made_of_an_image_that_is_not_kept() -> None:
    least = LeastConfident(1)
    least.add(0.6, "a", Image.new("RGB", (8, 8), "red"))
    least.add(0.7, "b", None)  # type: ignore[arg-type]  # it would fail if anyone looked
    least.add(0.6, "c", None)  # type: ignore[arg-type]
    (asked,) = least.in_order()
    shown = decode(base64.b64decode(asked.src.removeprefix("data:image/jpeg;base64,")), 100)
    assert asked.address == "a" and shown.getpixel((4, 4)) == pytest.approx((254, 0, 0), abs=3)


def test_an_image_that_is_held_is_not_taken_again_and_one_that_went_may_come_back() -> None:
    small, least = Image.new("RGB", (8, 8)), LeastConfident(2)
    for confidence, address in ((0.9, "a"), (0.9, "a"), (0.8, "b"), (0.7, "c"), (0.6, "a"), (0.6, "a")):
        least.add(confidence, address, small)
    assert [asked.address for asked in least.in_order()] == ["a", "c"] and least.repeated == 2


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((4000, 3000), (640, 480)), ((1920, 1080), (739, 416)), ((3000, 4000), (480, 640)), ((1000, 1000), (554, 554)),
        ((640, 480), (640, 480)), ((300, 900), (300, 900)), ((9000, 900), (1280, 128)), ((50_000, 1000), (1280, 26)),
        ((1, 1), (1, 1)),
    ],
)  # fmt: skip
def test_a_picture_is_bounded_whatever_its_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = Picture(lambda side: Image.new("RGB", size))
    picture(256)
    assert picture.small and picture.small.size == expected


def test_an_image_is_decoded_once_unless_the_model_sees_too_little_for_a_person(
    picture: Callable[..., Image.Image],
) -> None:
    sides: list[int] = []

    def opened(shorter_side: int) -> Image.Image:
        sides.append(shorter_side)
        return picture(2 * shorter_side, 2 * shorter_side)

    for side, asked, shown in ((256, [256], 512), (300, [300], 554), (32, [32, 256], 512)):
        sides.clear()
        one = Picture(opened)
        assert one(side).tobytes() == picture(2 * side, 2 * side).tobytes() and sides == asked
        assert one.small and one.small.size == (shown, shown)


def test_what_cannot_be_opened_has_no_picture_and_says_why() -> None:
    def refuse(reason: str, _: int) -> Image.Image:
        raise DataError(reason)

    one = Picture(partial(refuse, "no such file"))
    with pytest.raises(DataError, match="no such file"):
        one(224)
    assert one.small is None
