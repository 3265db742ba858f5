"""The place of a test that holds for every one."""

from pathlib import Path

import pytest

from tests.cloud_storage import Cloud
from tests.simple_storage import Simple
from tests.storage.places import CloudStorage, Disk, Memory, Place, SimpleStorage


@pytest.fixture(params=["disk", "gs", "s3", "mem"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An empty place: a folder, a bucket of each store, and one of a kind that natix does not have."""
    if request.param == "disk":
        root: Path = tmp_path_factory.mktemp("disk")
        return Disk(root)
    if request.param == "gs":
        cloud: Cloud = request.getfixturevalue("cloud")
        return CloudStorage(cloud)
    if request.param == "s3":
        simple: Simple = request.getfixturevalue("simple")
        return SimpleStorage(simple)
    patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    return Memory(patch)
