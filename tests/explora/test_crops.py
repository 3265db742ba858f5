import numpy as np
import pytest
import torch

from natix_lib.explora import crops
from natix_lib.explora.crops import Draws, _hue, boxes, draw, draw_crops

PLAIN = torch.zeros(3), torch.ones(3)


def plain(n: int = 1, **changes: object) -> Draws:
    """A crop of the whole image that changes nothing."""
    values: dict = {
        "area": np.ones(n, np.float32),
        "ratio": np.ones(n, np.float32),
        "place": np.zeros((n, 2), np.float32),
        "flip": np.zeros(n, bool),
        "colour": np.tile(np.array([1, 1, 1, 0], np.float32), (n, 1)),
        "grey": np.zeros(n, bool),
        "sigma": np.zeros(n, np.float32),
        "solarize": np.zeros(n, bool),
    }
    return Draws(**{**values, **changes})


def apply(
    images: torch.Tensor, sizes: torch.Tensor, draws: Draws, side: int, mean: torch.Tensor, std: torch.Tensor
) -> torch.Tensor:
    return crops.apply(images, sizes, [draws], [side], mean, std)[0]


def pictures(n: int = 1, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_a_whole_crop_at_the_same_size_is_the_image() -> None:
    images = pictures()
    made = apply(images, torch.tensor([[16, 16]]), plain(), 16, *PLAIN)
    torch.testing.assert_close(made, images / 255, rtol=0, atol=1e-5)


def test_a_mirrored_crop_is_mirrored() -> None:
    images = pictures()
    made = apply(images, torch.tensor([[16, 16]]), plain(flip=np.ones(1, bool)), 16, *PLAIN)
    torch.testing.assert_close(made, (images / 255).flip(3), rtol=0, atol=1e-5)


def test_padding_is_never_seen() -> None:
    images = torch.full((64, 3, 32, 48), 255, dtype=torch.uint8)
    sizes = torch.tensor([[20, 30]]).repeat(64, 1)
    images[:, :, :20, :30] = 0
    draws = draw(64, (0.05, 1.0), 0.0, 0.0, np.random.default_rng(0))
    assert float(apply(images, sizes, draws, 12, *PLAIN).max()) < 1e-5


def test_a_crop_that_shrinks_averages_instead_of_skipping() -> None:
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    images[..., ::2] = 255  # one-pixel stripes alias to black or white when pixels are skipped
    made = apply(images, torch.tensor([[64, 64]]), plain(), 16, *PLAIN)
    assert made.mean() == pytest.approx(0.5, abs=0.02) and float(made.std()) < 0.1


def test_boxes_lie_inside_and_keep_area_and_ratio() -> None:
    draws = draw(500, (0.32, 0.6), 0.0, 0.0, np.random.default_rng(0))
    sizes = torch.tensor([[100.0, 120.0]]).repeat(500, 1)
    area, ratio, place = map(torch.from_numpy, (draws.area, draws.ratio, draws.place))
    box = boxes(area, ratio, place, sizes)
    assert (
        (box >= 0).all() and (box[:, 0] + box[:, 2] <= 120 + 1e-3).all() and (box[:, 1] + box[:, 3] <= 100 + 1e-3).all()
    )
    whole = (box[:, 2] < 120) & (box[:, 3] < 100)
    np.testing.assert_allclose((box[:, 2] * box[:, 3])[whole], draws.area[whole.numpy()] * 12000, rtol=1e-4)
    assert (
        float((box[:, 2] / box[:, 3])[whole].min()) >= 0.75 - 1e-4
        and float((box[:, 2] / box[:, 3])[whole].max()) < 1.34
    )


def test_a_turn_of_the_hue_keeps_grey_and_brightness() -> None:
    turn = _hue(torch.tensor([0.6]))[0]
    torch.testing.assert_close(turn @ torch.full((3,), 0.4), torch.full((3,), 0.4), rtol=0, atol=2e-3)
    colour, luma = torch.tensor([0.7, 0.2, 0.4]), torch.tensor([0.299, 0.587, 0.114])
    assert float(luma @ (turn @ colour)) == pytest.approx(float(luma @ colour), abs=1e-3)
    torch.testing.assert_close(_hue(torch.tensor([0.0]))[0], torch.eye(3), rtol=0, atol=1e-5)


def test_grey_solarised_and_blurred_crops() -> None:
    images, size = pictures(side=24), torch.tensor([[24, 24]])
    grey = apply(images, size, plain(grey=np.ones(1, bool)), 24, *PLAIN)
    torch.testing.assert_close(grey[:, 0], grey[:, 1])
    solarised = apply(images, size, plain(solarize=np.ones(1, bool)), 24, *PLAIN)
    assert float(solarised.max()) <= 0.5 + 1e-5
    blurred = apply(images, size, plain(sigma=np.full(1, 15.0, np.float32)), 24, *PLAIN)
    assert float(blurred.std()) < 0.5 * float((images / 255).std())
    assert float(blurred.mean()) == pytest.approx(float((images / 255).mean()), abs=0.02)


def test_rows_of_all_draws_are_the_draws_of_a_process() -> None:
    every = draw_crops(8, 2, (0.32, 1.0), (0.05, 0.32), np.random.default_rng(0))
    images, sizes = pictures(8), torch.tensor([[16, 16]]).repeat(8, 1)
    together = apply(images, sizes, every[0], 8, *PLAIN)
    apart = torch.cat([apply(images[r], sizes[r], every[0].rows(r), 8, *PLAIN) for r in (slice(0, 4), slice(4, 8))])
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-5)
    assert len(every) == 4


def test_crops_made_together_are_the_crops_made_apart() -> None:
    every = draw_crops(6, 3, (0.32, 1.0), (0.05, 0.32), np.random.default_rng(1))
    images, sizes = pictures(6, side=90), torch.tensor([[90, 90], [90, 70], [31, 90], [64, 64], [90, 90], [12, 15]])
    mean, std, sides = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.1]), [16, 16, 8, 8, 8]
    together = crops.apply(images, sizes, every, sides, mean, std)
    for crop, each, side in zip(together, every, sides, strict=True):
        assert torch.equal(crop, apply(images, sizes, each, side, mean, std))
        for i in range(6):
            one = apply(images[i : i + 1], sizes[i : i + 1], each.rows(slice(i, i + 1)), side, mean, std)
            torch.testing.assert_close(crop[i : i + 1], one, rtol=0, atol=1e-5)
