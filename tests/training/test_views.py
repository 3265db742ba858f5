import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from natix_lib.config import Dataloader, Training
from natix_lib.distributed.world import ALONE
from natix_lib.training.features import cache_key
from natix_lib.training.passes import Passes
from natix_lib.training.profiles import NONE, PROFILES, STREET, STRONG, Profile
from natix_lib.training.views import Views, batches
from natix_lib.transform import Transform

WIDE = Transform(32, 48, True, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Pictures:
    """Noise of several sizes, mirrored ones and such of other modes among them."""

    def __init__(self, n: int = 9) -> None:
        self.ids = [f"{row:02}" for row in range(n)]

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Image.Image:
        noise = np.random.default_rng(index).integers(0, 256, (40 + index, 90 - 5 * index, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((70 + index, 48)) if index % 3 else Image.fromarray(noise)
        return image.convert("L") if index == 4 else image


def loaded(views: Views, batch: int = 4, workers: int = 0, order: list[int] | None = None) -> torch.Tensor:
    return torch.cat(list(batches(views, Dataloader(batch_size=batch, num_workers=workers), order)))


@pytest.mark.parametrize("multiview", [False, True])
@pytest.mark.parametrize("side", [16, 32, 48])
def test_evaluation_views_have_the_bits_of_the_transform(side: int, multiview: bool) -> None:
    transform = Transform(side, 48, multiview, WIDE.image_mean, WIDE.image_std)
    images = Pictures()
    expected = np.stack([transform(images.image(row)) for row in range(len(images))])
    assert np.array_equal(loaded(Views(images, transform, 0)).numpy(), expected)


@pytest.mark.parametrize("name", PROFILES)
def test_a_view_has_the_same_bits_whatever_the_batch_and_the_order(name: str) -> None:
    views = Views(Pictures(), WIDE, 3, range(1, 9), PROFILES[name])
    alone = loaded(views, 1)
    assert torch.equal(loaded(views, 9), alone)
    assert torch.equal(loaded(views, 5, 0, [7, 3, 0]), alone[[7, 3, 0]])
    assert torch.equal(loaded(Views(views.images, WIDE, 3, (4,), PROFILES[name])), alone[:, 3:4])


def test_views_of_two_images_are_drawn_apart() -> None:
    images = Pictures(2)
    images.image = lambda index: Pictures().image(0)  # type: ignore[method-assign]
    first, second = loaded(Views(images, WIDE, 0, (1, 2)))
    assert not torch.equal(first, second) and not torch.equal(first[0], first[1])


def test_processes_give_the_bits_of_none_and_stay_from_epoch_to_epoch() -> None:
    images, labels = Pictures(), torch.arange(9)
    here, there = (
        Passes(WIDE, 3, Dataloader(batch_size=4, num_workers=workers), ALONE, profile=STRONG) for workers in (0, 2)
    )
    seen = set()
    for epoch in (0, 1):
        ours, theirs = (list(passes.pixel_batches(images, labels, epoch)) for passes in (here, there))
        assert all(
            torch.equal(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)
        )
        views = Views(images, WIDE, 3, (epoch + 1,), STRONG)
        rows = torch.cat([rows for _, rows in ours])
        assert torch.equal(torch.cat([pixels for pixels, _ in ours]), loaded(views)[rows, 0])
        (epochs,) = there._epochs.values()
        iterator: Any = epochs._loader._iterator
        seen.add(tuple(process.pid for process in iterator._workers))
    assert len(seen) == 1


def test_an_epoch_that_was_left_early_is_followed_by_a_whole_one() -> None:
    images, labels = Pictures(), torch.arange(9)
    passes = Passes(WIDE, 3, Dataloader(batch_size=2, num_workers=1), ALONE)
    next(passes.pixel_batches(images, labels, 0))
    rows = torch.cat([rows for _, rows in passes.pixel_batches(images, labels, 1, start=1)])
    again = Passes(WIDE, 3, Dataloader(batch_size=2, num_workers=0), ALONE)
    assert torch.equal(rows, torch.cat([rows for _, rows in again.pixel_batches(images, labels, 1)])[2:])


def test_processes_that_stay_leave_dropout_as_a_loader_of_each_epoch_does() -> None:
    images, labels = Pictures(3), torch.arange(3)
    states = []
    for workers in (0, 1):
        torch.manual_seed(0)
        passes = Passes(WIDE, 3, Dataloader(batch_size=4, num_workers=workers), ALONE)
        for epoch in (0, 1):
            list(passes.pixel_batches(images, labels, epoch))
        states.append(torch.get_rng_state())
    torch.manual_seed(0)
    for _ in range(2):
        iter(torch.utils.data.DataLoader(Views(images, WIDE, 0)))
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], torch.get_rng_state())


def test_without_augmentation_a_view_is_one_of_the_evaluation_squares() -> None:
    images = Pictures()
    squares, drawn = loaded(Views(images, WIDE, 0)), loaded(Views(images, WIDE, 0, range(8), NONE))
    places = (drawn[:, :, None] == squares[:, None]).flatten(3).all(dim=3)
    assert places.any(dim=2).all() and places.any(dim=1).sum() > 9


def test_features_are_kept_by_profile_and_version_where_views_are_augmented() -> None:
    def key(numbers: tuple[int, ...], profile: Profile) -> dict:
        return cache_key("weights", (), "data", Views(Pictures(), WIDE, 0, numbers, profile), ["00"], "None")

    assert key((1,), STREET)["augmentation"] == {"name": "street", "version": 1}
    assert key((1,), STREET) != key((1,), STRONG)
    assert key((), STREET) == key((), STRONG)


def test_the_config_names_every_profile() -> None:
    named = get_args(Training.model_fields["augmentation"].annotation)
    assert set(named) == set(PROFILES) == {profile.name for profile in PROFILES.values()}
    assert PROFILES[Training().augmentation] is STREET


@pytest.mark.slow
@pytest.mark.parametrize("way", ["batches", "epochs"])
def test_an_error_ends_python_while_processes_that_do_not_end_when_told_to_still_decode(way: str) -> None:
    here = f"""
import torch
from natix_lib.config import Dataloader
from natix_lib.training.views import Epochs, Views, batches
from tests.training.test_views import Pictures, WIDE
views, settings = Views(Pictures(64), WIDE, 0, (1,)), Dataloader(batch_size=1, num_workers=2)
made = Epochs(views, settings, torch.device("cpu"))
given = batches(views, settings) if {way == "batches"} else made.batches([[row] for row in range(64)], 1)
next(given)
raise OSError("the disk is full")
"""
    ended = subprocess.run([sys.executable, "-c", here], capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 1 and ended.stderr.rstrip().endswith("OSError: the disk is full")
