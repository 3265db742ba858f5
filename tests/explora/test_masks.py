import numpy as np
import pytest
from scipy.ndimage import label

from natix_lib.explora.masks import LEAST_BLOCK, batch_masks, block_mask


def test_a_mask_covers_what_is_wanted_and_never_more() -> None:
    covered = [int(block_mask(14, 14, 60, np.random.default_rng(seed)).sum()) for seed in range(100)]
    assert max(covered) <= 60 and np.mean(covered) > 55


def test_the_first_block_is_a_rectangle_of_at_least_four_patches_and_not_too_long() -> None:
    for seed in range(200):
        mask = block_mask(14, 14, LEAST_BLOCK + 4, np.random.default_rng(seed))
        for number in range(1, label(mask)[1] + 1):
            rows, _ = np.nonzero(label(mask)[0] == number)
            assert len(rows) >= LEAST_BLOCK
        assert mask.any()


def test_half_the_images_are_masked_with_ratios_over_the_whole_range() -> None:
    masks = batch_masks(64, 14, 14, 0.5, (0.1, 0.5), np.random.default_rng(0))
    share = masks.mean(axis=1)
    masked = share[share > 0]
    assert masks.shape == (64, 196) and len(masked) == 32
    assert masked.max() <= 0.5 and masked.min() < 0.15 and masked.max() > 0.45
    assert masked.mean() == pytest.approx(0.3, abs=0.03)


def test_masks_depend_on_the_generator_alone() -> None:
    first, second = (batch_masks(8, 7, 7, 0.5, (0.1, 0.5), np.random.default_rng(3)) for _ in range(2))
    assert (first == second).all()
