import io
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from natix_lib.config import Dataloader
from natix_lib.contracts import ARTIFACTS, ROLES, SETS, STEPS, write_manifest
from natix_lib.data.arrow import shard_paths
from natix_lib.data.index import read_index
from natix_lib.data.sets import indexed_images, open_set, require_one_division, write_sets
from natix_lib.errors import ContractError
from natix_lib.files import read_json, sha256_file
from natix_lib.training.views import Views, batches
from natix_lib.transform import Transform
from tests.street_sets import ingested, ingested_and_split, run_step

Paths = dict[str, str]


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """The artifacts of ingest and split of 72 images; tests must not change them."""
    return ingested_and_split(tmp_path_factory.mktemp("set"))


def test_a_set_holds_the_images_of_its_role_by_rising_id(divided: Paths) -> None:
    test = open_set(divided["test_set"], "TEST")
    assert test.ids == sorted(read_json(divided["splits"])["roles"]["TEST"]) and len(test) == len(test.ids)
    for number, name in enumerate(test.ids):
        assert test.labels[number] == int(name[:2]) % 2
        assert test.image(number).size == (56, 40) and test.image(number).mode == "RGB"
    assert test.tags() == {"camera": ["rear" if name.endswith("-0.png") else "front" for name in test.ids]}
    assert len(set(test.groups)) == len(test) / 3
    assert test.splits_sha256 == sha256_file(divided["splits"])


def stored(folder: str) -> dict[str, bytes]:
    """Id to encoded image, as Hugging Face datasets reads a folder's shards."""
    rows: dict[str, bytes] = {}
    for path in shard_paths(Path(folder)):
        shard = datasets.Dataset.from_file(str(path)).cast_column("image", datasets.Image(decode=False))
        rows |= {row["id"]: row["image"]["bytes"] for row in shard}
    return rows


def test_the_sets_together_are_all_images_byte_for_byte(divided: Paths) -> None:
    parts = [stored(divided[name]) for name in SETS.values()]
    together = {name: content for part in parts for name, content in part.items()}
    assert sum(map(len, parts)) == len(together) == 72 and together == stored(divided["images"])
    with Image.open(io.BytesIO(next(iter(together.values())))) as image:
        assert image.format == "JPEG"


def test_a_set_opens_with_the_class_names_of_hugging_face_datasets(divided: Paths) -> None:
    (shard,) = shard_paths(Path(divided["train_set"]))
    opened = datasets.Dataset.from_file(str(shard))
    assert opened.features["label"].names == ["None", "Roadwork"] and set(opened[0]["tags"]) == {"camera"}
    assert {row["id"]: row["label"] for row in opened} == {name: int(name[:2]) % 2 for name in opened["id"]}


def test_a_set_of_another_role_is_refused(divided: Paths) -> None:
    for role in ("TRAIN", "VAL_SELECT", "VAL_CALIB"):
        with pytest.raises(ContractError, match=f"must be a {SETS[role]} document, got 'test_set'"):
            open_set(divided["test_set"], role)


def test_sets_of_two_divisions_are_refused(divided: Paths, tmp_path: Path) -> None:
    shutil.copytree(divided["train_set"], tmp_path / "train_set")
    manifest = read_json(tmp_path / "train_set" / "set.json")
    write_manifest(tmp_path / "train_set", "train_set", {**manifest, "splits_sha256": "0" * 64})
    sets = {
        "train_set": open_set(tmp_path / "train_set", "TRAIN"),
        "test_set": open_set(divided["test_set"], "TEST"),
    }
    with pytest.raises(ContractError, match=r"splits_sha256 differs: train_set has '0+', test_set has"):
        require_one_division(sets)


def altered(folder: str, copy: Path) -> Path:
    """A copy of a folder one byte of whose first shard is another, of the same size."""
    shutil.copytree(folder, copy)
    shard = shard_paths(copy)[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    return copy


def test_a_set_with_a_changed_shard_is_refused(divided: Paths, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="does not match the SHA-256"):
        open_set(altered(divided["train_set"], tmp_path / "train_set"), "TRAIN")


def copy_out(divided: Paths, images: Path, out: Path, roles: np.ndarray | None = None) -> dict[str, Path]:
    """Copy the sets out of `images` by the index of `divided`; every third image into each of three roles."""
    index = read_index(divided["index"])
    folders = {role: out / role for role in SETS}
    numbers = np.arange(len(index)) % 4 if roles is None else roles
    files = read_json(images / "images.json")["files"]
    write_sets(
        indexed_images([(images, files)], index),
        index,
        numbers,
        [f"g{n}" for n in range(len(index))],
        "0" * 64,
        folders,
    )
    return folders


@pytest.mark.slow
def test_a_byte_of_the_images_or_the_index_that_was_changed_is_told_and_brings_no_reader_down(
    divided: Paths, tmp_path: Path
) -> None:
    """Bytes all over the first part of a shard, where Arrow keeps its offsets, and all over the index."""
    pairs = []
    for number in range(24):
        copy = Path(shutil.copytree(divided["images"], tmp_path / f"images{number}"))
        flip(shard_paths(copy)[0], 250 + 97 * number)
        pairs.append((str(copy), divided["index"]))
        index = Path(shutil.copy(divided["index"], tmp_path / f"index{number}"))
        flip(index, index.stat().st_size * number // 24)
        pairs.append((divided["images"], str(index)))
    code = (
        "import json, sys; from natix_lib.errors import ContractError; from natix_lib.steps import split\n"
        "outputs, pairs = json.load(open(sys.argv[1]))\n"
        "for images, index in pairs:\n"
        "    try:\n"
        "        split.run({'split': {}}, images=images, index=index, **outputs)\n"
        "    except ContractError as error:\n"
        "        print('refused')\n"
    )
    outputs = {name: str(tmp_path / "out" / ARTIFACTS[name].file) for name in STEPS["split"].outputs}
    (tmp_path / "asked.json").write_text(json.dumps([outputs, pairs]))
    command = [sys.executable, "-c", code, str(tmp_path / "asked.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["refused"] * len(pairs) and not list(tmp_path.rglob("set.json"))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x7F
    path.write_bytes(bytes(content))


def test_images_of_another_index_give_no_set(divided: Paths, tmp_path: Path) -> None:
    other = ingested(tmp_path / "other", groups=8)
    with pytest.raises(ContractError, match=r"index_sha256 differs: images.json has .*, the index has"):
        run_step("split", {"split": {}}, tmp_path / "out", {**divided, "images": other["images"]})
    with pytest.raises(ContractError, match=r"holds 24 images, its index 72"):
        copy_out(divided, Path(other["images"]), tmp_path)
    assert not list(tmp_path.rglob("set.json"))


def test_an_image_of_no_role_goes_nowhere_and_order_and_groups_are_kept(divided: Paths, tmp_path: Path) -> None:
    roles = np.arange(72) % 4
    roles[:8] = -1
    folders = copy_out(divided, Path(divided["images"]), tmp_path, roles)
    ids = read_index(divided["index"]).column("id")
    for number, role in enumerate(ROLES):
        opened = open_set(folders[role], role)
        assert opened.ids == [name for name, chosen in zip(ids, roles, strict=True) if chosen == number]
        assert opened.groups == [f"g{n}" for n in np.flatnonzero(roles == number)]


@pytest.mark.slow
def test_a_set_reaches_loading_processes(divided: Paths) -> None:
    train = open_set(divided["train_set"], "TRAIN")
    again = pickle.loads(pickle.dumps(train))
    assert again.image_bytes(1) == train.image_bytes(1)
    views = Views(train, Transform(16, 32, False, (0.5,) * 3, (0.5,) * 3), 0)
    loaded = [torch.cat(list(batches(views, Dataloader(batch_size=8, num_workers=workers)))) for workers in (0, 2)]
    assert torch.equal(*loaded)


def test_shards_are_gathered_to_batches_however_images_come(divided: Paths, tmp_path: Path) -> None:
    """A role with every fourth image of each batch is not written as batches of a quarter."""
    folders = copy_out(divided, Path(divided["images"]), tmp_path)
    with shard_paths(folders["TRAIN"])[0].open("rb") as file, pa.ipc.open_stream(file) as stream:
        assert [batch.num_rows for batch in stream] == [18]


def test_what_is_said_of_a_set_is_json_that_names_no_image(divided: Paths) -> None:
    text = (Path(divided["test_set"]) / "set.json").read_text()
    assert ".png" not in text and json.loads(text)["role"] == "TEST"
