import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from natix_lib.bundle.transform import Transform
from natix_lib.config import Dataloader
from natix_lib.data.dataset import open_dataset, open_role
from natix_lib.errors import ContractError
from natix_lib.training.views import Views, batches
from tests.street_sets import ingested_and_split


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return ingested_and_split(tmp_path_factory.mktemp("set"))


def test_a_view_holds_the_images_of_its_role_by_rising_id(opened: tuple[str, str]) -> None:
    view = open_role("evaluate", "TEST", *opened)
    assert view.ids == sorted(json.loads(Path(opened[1]).read_text())["roles"]["TEST"]) and len(view) == len(view.ids)
    for index, name in enumerate(view.ids):
        assert view.labels[index] == int(name[:2]) % 2
        picture = view.image(index)
        has_square = np.asarray(picture)[..., 0].max() > 150  # the noise is below 120
        assert (picture.size, picture.mode, has_square) == ((56, 40), "RGB", bool(view.labels[index]))
    assert view.tags() == {"camera": ["rear" if name.endswith("-0.png") else "front" for name in view.ids]}
    assert len(set(view.groups)) == len(view) / 3


@pytest.mark.parametrize(
    ("step", "role"),
    [("train", "TEST"), ("sweep", "TEST"), ("export", "TRAIN"), ("evaluate", "VAL_CALIB"), ("fetch", "TRAIN")],
)
def test_a_step_that_opens_a_role_it_may_not_read_is_refused(opened: tuple[str, str], step: str, role: str) -> None:
    with pytest.raises(ContractError, match=f"step {step} may not read split {role}"):
        open_role(step, role, *opened)


def test_splits_of_another_dataset_are_refused(opened: tuple[str, str], tmp_path: Path) -> None:
    document = json.loads(Path(opened[1]).read_text())
    (tmp_path / "splits.json").write_text(json.dumps({**document, "dataset_fingerprint": "other"}))
    with pytest.raises(ContractError, match=r"dataset_fingerprint differs: dataset has .*, splits.json has 'other'"):
        open_role("train", "TRAIN", opened[0], tmp_path / "splits.json")


def test_splits_that_name_an_unknown_image_are_refused(opened: tuple[str, str], tmp_path: Path) -> None:
    document = json.loads(Path(opened[1]).read_text())
    document["roles"]["TRAIN"].append("zz.png")
    (tmp_path / "splits.json").write_text(json.dumps(document))
    with pytest.raises(ContractError, match=r"TRAIN must list images of the dataset, got \['zz.png'\]"):
        open_role("train", "TRAIN", opened[0], tmp_path / "splits.json")


def test_a_changed_shard_is_refused(tmp_path: Path) -> None:
    dataset, _ = ingested_and_split(tmp_path, groups=16, frames=1)
    shard = next(Path(dataset).glob("data-*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    (Path(dataset) / "dataset.json").touch()
    with pytest.raises(ContractError, match="does not match the SHA-256"):
        open_dataset(dataset)


def test_a_view_reaches_loading_processes(opened: tuple[str, str]) -> None:
    view = open_role("train", "TRAIN", *opened)
    again = pickle.loads(pickle.dumps(view))
    assert again.image_bytes(1) == view.image_bytes(1)
    views = Views(view, Transform(16, 32, False, (0.5,) * 3, (0.5,) * 3), 0)
    loaded = [torch.cat(list(batches(views, Dataloader(batch_size=8, num_workers=workers)))) for workers in (0, 2)]
    assert torch.equal(*loaded)
