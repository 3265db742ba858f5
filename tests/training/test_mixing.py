import numpy as np
import pytest
import torch

from natix_lib.distributed.world import ALONE, World
from natix_lib.training.mixing import Mixup

PIXELS = torch.randn(9, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1])


def test_images_and_labels_are_blended_by_the_same_share_with_the_same_partners() -> None:
    pixels, targets = Mixup(0.4, 3, 7).blended(PIXELS, LABELS, 2, 5, ALONE)
    generator = np.random.default_rng((7, 2, 5))
    kept, partners = generator.beta(0.4, 0.4), torch.from_numpy(generator.permutation(9))
    torch.testing.assert_close(pixels, PIXELS * kept + PIXELS[partners] * (1 - kept))
    torch.testing.assert_close(
        targets, (torch.eye(3)[LABELS] * kept + torch.eye(3)[LABELS[partners]] * (1 - kept)).float()
    )
    torch.testing.assert_close(targets.sum(1), torch.ones(9))


def test_each_step_and_epoch_is_blended_in_another_way() -> None:
    mixup = Mixup(1.0, 3, 0)
    first = mixup.blended(PIXELS, LABELS, 0, 0, ALONE)[0]
    assert torch.equal(mixup.blended(PIXELS, LABELS, 0, 0, ALONE)[0], first)
    assert not any(torch.allclose(mixup.blended(PIXELS, LABELS, *at, ALONE)[0], first) for at in ((0, 1), (1, 0)))


@pytest.mark.parametrize("processes", [2, 4, 10])
def test_the_shares_of_all_processes_are_the_batch_of_one(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mixup = Mixup(1.0, 3, 1)
    whole = mixup.blended(PIXELS, LABELS, 0, 3, ALONE)
    monkeypatch.setattr(World, "gathered", lambda *_: PIXELS)  # what an exchange would bring
    worlds = [World(rank, processes) for rank in range(processes)]
    shares = [mixup.blended(PIXELS[list(world.share(9))], LABELS, 0, 3, world) for world in worlds]
    for number, expected in enumerate(whole):
        assert torch.equal(torch.cat([share[number] for share in shares]), expected)
