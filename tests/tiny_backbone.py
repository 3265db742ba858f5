"""The small backbone of most tests, for those too that run without the other fixtures."""

from pathlib import Path

import pytest

from natix_lib.demo.backbone import write_untrained_backbone


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv3 of two layers for 32-pixel images, in the hub's layout."""
    folder = tmp_path_factory.mktemp("backbone") / "tiny"
    write_untrained_backbone(folder, hidden_size=64, layers=2, patch_size=8, image_size=32)
    return folder
