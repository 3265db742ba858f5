import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from natix_lib.decisions.slices import Tags
from natix_lib.errors import CalibrationError, ContractError
from natix_lib.logits import read_labels, read_logits, read_pair, write_labels, write_logits

HEADER = {
    "role": "VAL_CALIB",
    "class_names": '["None", "Roadwork"]',
    "positive_classes": '["Roadwork"]',
    "model_sha256": "m",
    "splits_sha256": "s",
    "dataset_fingerprint": "d",
    "ids_sha256": "i",
}
LOGITS = np.array([[0.5, -1.0], [2.0, 3.0], [0, 1]], dtype=np.float32)


def pair(folder: Path, logits: np.ndarray = LOGITS, labels: Any = (0, 1, 1), **changes: str) -> tuple[Path, Path]:
    paths = folder / "logits", folder / "labels"
    write_logits(paths[0], logits, {**HEADER, **changes})
    write_labels(paths[1], np.asarray(labels), np.arange(len(labels)), HEADER)
    return paths


def test_what_is_written_is_read_by_us_and_by_the_safetensors_package(tmp_path: Path) -> None:
    logits, labels = pair(tmp_path)
    assert np.array_equal(load_file(logits)["logits"], LOGITS)
    data = read_pair(logits, labels)
    assert np.array_equal(data.logits, LOGITS) and data.labels.tolist() == [0, 1, 1]
    assert data.groups is not None and data.groups.tolist() == [0, 1, 2]
    assert (data.class_names, data.positive_classes) == (["None", "Roadwork"], ["Roadwork"])


@pytest.mark.slow
def test_equal_logits_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from natix_lib.logits import write_logits;"
        "write_logits(sys.argv[1], np.ones((2, 2), np.float32), {k: k for k in ('role', *'abcdefg')})"
    )
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    first, second = (hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a", "b"))
    assert first == second


def test_a_pt_of_the_first_trainer_is_read_without_provenance(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(LOGITS), tmp_path / "logits.pt")
    torch.save(torch.tensor([0, 1, 1]), tmp_path / "labels.pt")
    data = read_pair(tmp_path / "logits.pt", tmp_path / "labels.pt")
    assert np.array_equal(data.logits, LOGITS) and data.header == {} and data.class_names == ["0", "1"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_pt_of_any_precision_with_or_without_its_gradient_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(LOGITS).to(dtype)
    for name, value in (("plain", tensor), ("gradient", tensor.requires_grad_()), ("p", torch.nn.Parameter(tensor))):
        torch.save(value, tmp_path / name)
        assert np.array_equal(read_logits(tmp_path / name).values, LOGITS)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(2, 2, dtype=torch.complex64), "must hold a plain tensor of numbers, got torch.complex64"),
        (torch.eye(2).to_sparse(), "must hold a plain tensor of numbers, got torch.float32, torch.sparse_coo"),
    ],
)
def test_a_pt_that_is_no_array_of_numbers_is_refused(tmp_path: Path, tensor: torch.Tensor, message: str) -> None:
    torch.save(tensor, tmp_path / "x")
    with pytest.raises(ContractError, match=message):
        read_logits(tmp_path / "x")


@pytest.mark.parametrize("labels", [torch.tensor([0.0, 0.7, 1.0]), torch.tensor([True, False, True])])
def test_labels_that_are_no_whole_numbers_are_refused_and_not_cut_off(tmp_path: Path, labels: torch.Tensor) -> None:
    torch.save(labels, tmp_path / "labels.pt")
    with pytest.raises(ContractError, match=r"labels.pt: labels must be whole numbers, got (float32|bool)"):
        read_labels(tmp_path / "labels.pt")


def test_a_pickle_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"logits": Path("x")}, tmp_path / "bad.pt")
    with pytest.raises(ContractError, match=r"bad.pt is no plain tensor"):
        read_logits(tmp_path / "bad.pt")


def test_logits_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ContractError, match="model_sha256 differs: the logits file has 'other', the labels file has 'm'"
    ):
        read_pair(*pair(tmp_path, model_sha256="other"))


def test_logits_of_another_role_fit_no_policy(tmp_path: Path) -> None:
    logits, labels = tmp_path / "logits", tmp_path / "labels"
    header = {**HEADER, "role": "TEST"}
    write_logits(logits, LOGITS, header)
    write_labels(labels, np.array([0, 1, 1]), np.arange(3), header)
    with pytest.raises(ContractError, match="logits must be a val_calib_logits file of schema 3, got 'test_logits'"):
        read_pair(logits, labels)
    save_file({"logits": LOGITS}, logits, {**header, "artifact": "val_calib_logits", "schema_version": "3"})
    write_labels(labels, np.array([0, 1, 1]), np.arange(3), HEADER)
    with pytest.raises(
        ContractError, match="role differs: the logits file has 'TEST', the labels file has 'VAL_CALIB'"
    ):
        read_pair(logits, labels)
    save_file(
        {"labels": np.array([0, 1, 1])}, labels, {**header, "artifact": "val_calib_labels", "schema_version": "3"}
    )
    with pytest.raises(ContractError, match="logits must hold logits of VAL_CALIB, got 'TEST'"):
        read_pair(logits, labels)


def test_every_role_has_files_of_its_own(tmp_path: Path) -> None:
    logits, labels = tmp_path / "logits", tmp_path / "labels"
    header = {**HEADER, "role": "VAL_SELECT"}
    write_logits(logits, LOGITS, header)
    write_labels(labels, np.array([0, 1, 1]), np.arange(3), header)
    assert read_pair(logits, labels, "VAL_SELECT").header["artifact"] == "val_select_logits"


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (LOGITS, [0, 1], "labels must have the length of the logits, 3"),
        (LOGITS, [0, 1, 2], "labels must be in 0..1, row 2 has 2"),
        (np.array([[0, 1], [np.nan, 1]]), [0, 1], "1 of 2 rows are not: 1"),
        (np.empty((0, 2)), [], "the split is empty"),
    ],
)
def test_pairs_that_do_not_fit_are_named(tmp_path: Path, logits: np.ndarray, labels: list, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        read_pair(*pair(tmp_path, logits, np.array(labels, dtype=np.int64)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("{", "class_names in the header of .* is not JSON"),
        ('"None"', "must be a list of texts"),
        ("[0, 1]", "list of"),
    ],
)
def test_class_names_that_are_no_list_of_names_are_refused(tmp_path: Path, names: str, message: str) -> None:
    logits, labels = pair(tmp_path, class_names=names)
    write_labels(labels, np.array([0, 1, 1]), np.arange(3), {**HEADER, "class_names": names})
    with pytest.raises(ContractError, match=message):
        read_pair(logits, labels)


def test_labels_are_no_logits(tmp_path: Path) -> None:
    logits, labels = pair(tmp_path)
    with pytest.raises(ContractError, match="must be a val_calib_logits file"):
        read_logits(labels)
    with pytest.raises(ContractError, match="must be a val_calib_labels file"):
        read_labels(logits)


def test_a_file_that_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    with pytest.raises(ContractError, match="is no readable val_calib_logits file"):
        read_logits(tmp_path / "x")


TAGS = Tags.of({"weather": ["rain", None, "sun"], "camera": ["front", "é", "front"], "id": ["a", "b", "c"]}, 3)


def tagged(folder: Path, tags: Tags = TAGS) -> tuple[Path, Path]:
    logits, labels = pair(folder)
    write_labels(labels, np.array([0, 1, 1]), np.arange(3), HEADER, tags)
    return logits, labels


def test_tags_are_read_as_they_were_written_and_files_without_them_still_are(tmp_path: Path) -> None:
    assert read_pair(*pair(tmp_path)).tags is None
    paths = tagged(tmp_path)
    tags = read_pair(*paths).tags
    assert tags and tags.values == TAGS.values and np.array_equal(tags.codes, TAGS.codes)
    assert load_file(paths[1])["tags"].tolist() == [[0, 0, 0], [1, 1, -1], [0, 2, 1]]  # camera, id, weather
    first = paths[1].read_bytes()
    assert tagged(tmp_path)[1].read_bytes() == first
    tagged(tmp_path, Tags.of({}, 3))
    none = read_pair(*paths).tags
    assert none and not none.values and none.codes.shape == (3, 0)
    tagged(tmp_path, Tags(TAGS.values, TAGS.codes, ["place"]))
    left = read_labels(paths[1]).tags
    assert left and left.left_out == ["place"]


@pytest.mark.parametrize(
    ("tags", "error", "message"),
    [
        (
            Tags(TAGS.values, TAGS.codes + np.int16(1)),
            ContractError,
            "tags must be numbers of the values of its 3 tags",
        ),
        (
            Tags(TAGS.values, TAGS.codes - np.int16(1)),
            ContractError,
            "tags must be numbers of the values of its 3 tags",
        ),
        (Tags({"weather": ["rain"]}, TAGS.codes), ContractError, r"of its 1 tags or -1, got shape \(3, 3\)"),
        (Tags(TAGS.values, TAGS.codes[1:]), CalibrationError, "tags must have the length of the labels, 3, got 2"),
    ],
)
def test_tags_that_do_not_fit_are_refused(tmp_path: Path, tags: Tags, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        read_pair(*tagged(tmp_path, tags))


def test_tags_that_are_not_described_are_refused(tmp_path: Path) -> None:
    logits, labels = pair(tmp_path)
    header = {**HEADER, "artifact": "val_calib_labels", "schema_version": "3", "tags": "[1]", "tags_left_out": "[]"}
    save_file({"labels": np.array([0, 1, 1]), "tags": TAGS.codes}, labels, header)
    with pytest.raises(ContractError, match="tags in the header of .* must be pairs of a tag and its values, got"):
        read_pair(logits, labels)
