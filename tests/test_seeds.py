from pathlib import Path

import pytest
import torch

from natix_lib.config.section import LARGEST_INTEGER
from natix_lib.demo.backbone import write_untrained_backbone
from natix_lib.seeds import numbered_seed, torch_seed
from tests.explora.small import adapt, small
from tests.training.test_run import train

LARGE = [20_000_000_000_000, LARGEST_INTEGER]  # torch takes them, but not their products with a million


def test_a_small_seed_starts_torch_where_it_always_has() -> None:
    assert [torch_seed(seed) for seed in (0, 3, 2**64 - 1)] == [0, 3, 2**64 - 1]
    assert numbered_seed(0, 4) == 4 and numbered_seed(3, 5) == 3 * 1_000_003 + 5


@pytest.mark.parametrize("seed", [*LARGE, 2**70])
def test_each_number_gives_torch_a_seed_of_its_own_also_where_the_seed_is_large(seed: int) -> None:
    starts = {torch.Generator().manual_seed(numbered_seed(seed, number)).initial_seed() for number in range(10)}
    assert len(starts) == 10


@pytest.mark.parametrize("seed", LARGE)
@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"grid": {"lr": [1e-3, 1e-2]}}},
        {"training": {"feature_cache": False, "mixup": 0.2}},
        {"model": {"freeze_backbone": False}, "training": {"fine_tune": {"method": "lora"}}},
    ],
    ids=["grid", "pixels", "lora"],
)
def test_the_largest_seeds_train(tiny_backbone: Path, tmp_path: Path, changes: dict, seed: int) -> None:
    training = {"epochs": 1, "checkpoint_root": str(tmp_path), **changes["training"], "seed": seed}
    assert train(tiny_backbone, **{**changes, "training": training}).history


def test_the_largest_seed_adapts(tiny_backbone: Path) -> None:
    assert adapt(tiny_backbone, small(steps=1, seed=LARGEST_INTEGER)).history


def test_an_untrained_backbone_has_any_seed(tmp_path: Path) -> None:
    write_untrained_backbone(tmp_path / "vit", 2**64, 64, 1, 8, 32)
    assert (tmp_path / "vit" / "model.safetensors").is_file()
