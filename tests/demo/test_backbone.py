from pathlib import Path

import pytest

from natix_lib.demo.backbone import write_untrained_backbone
from natix_lib.errors import ConfigError
from tests.small_run import backbone_sha256


def test_untrained_weights_are_those_of_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_untrained_backbone(tmp_path / name, seed, hidden_size=64, layers=1, patch_size=8, image_size=32)
    hashes = [backbone_sha256(tmp_path / name) for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_an_untrained_backbone_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(ConfigError, match="must not exist or be empty"):
        write_untrained_backbone(tmp_path)


@pytest.mark.parametrize(("hidden_size", "image_size"), [(100, 32), (64, 30)])
def test_sizes_that_do_not_divide_are_refused(tmp_path: Path, hidden_size: int, image_size: int) -> None:
    with pytest.raises(ConfigError, match=f"got {hidden_size}, {image_size} and 8"):
        write_untrained_backbone(tmp_path, hidden_size=hidden_size, layers=1, patch_size=8, image_size=image_size)
    assert not list(tmp_path.iterdir())
