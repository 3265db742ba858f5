import json
from pathlib import Path

import pytest

from natix_lib import contracts
from natix_lib.errors import ContractError
from natix_lib.files import read_json, write_json


def test_after_the_split_only_evaluate_takes_test_only_adapt_images_without_a_label_and_no_step_all_images() -> None:
    takers = {
        name: {step for step, row in contracts.STEPS.items() if name in row.inputs}
        for name in ("test_set", "unlabelled_set", "images", "index")
    }
    assert takers == {"test_set": {"evaluate"}, "unlabelled_set": {"adapt"}, "images": {"split"}, "index": {"split"}}


def test_every_role_has_a_set_of_its_own_and_images_without_a_label_have_one() -> None:
    assert list(contracts.SETS) == [*contracts.ROLES, "UNLABELLED"]
    assert set(contracts.SETS.values()) < set(contracts.STEPS["split"].outputs)


def test_old_names_of_roles_are_understood_and_others_refused() -> None:
    assert contracts.parse_role("val_test") == contracts.TEST
    assert contracts.parse_role(" Train ") == contracts.TRAIN
    assert contracts.parse_role("validation") == contracts.VAL_SELECT
    with pytest.raises(
        ContractError, match="split role must be one of TRAIN, VAL_SELECT, VAL_CALIB, TEST, got 'fold1'"
    ):
        contracts.parse_role("fold1")


BACKBONE = {
    "source": "here",
    "hidden_size": 64,
    "patch_size": 8,
    "licence": {"name": "none", "note": "", "files": []},
    "weights_sha256": "0" * 64,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.2, 0.2, 0.2],
}


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(b"one")
    contracts.write_manifest(tmp_path, "backbone", BACKBONE)
    return tmp_path


def test_a_whole_folder_is_read_back(backbone: Path) -> None:
    manifest = contracts.read_manifest(backbone, "backbone")
    assert manifest["source"] == "here" and list(manifest["files"]) == ["weights"]


def test_a_folder_whose_writer_died_is_never_taken_for_a_whole_one(backbone: Path) -> None:
    (backbone / "backbone.json").unlink()
    with pytest.raises(ContractError, match="has no backbone.json: it was never finished"):
        contracts.read_manifest(backbone, "backbone")


@pytest.mark.parametrize(
    ("content", "message"), [(b"two", "does not match the SHA-256"), (b"longer", "has 6 bytes, its manifest says 3")]
)
def test_an_altered_file_is_refused(backbone: Path, content: bytes, message: str) -> None:
    (backbone / "weights").write_bytes(content)
    with pytest.raises(ContractError, match=message):
        contracts.read_manifest(backbone, "backbone")


def test_a_missing_file_is_refused(backbone: Path) -> None:
    (backbone / "weights").unlink()
    with pytest.raises(ContractError, match="lacks the file weights"):
        contracts.read_manifest(backbone, "backbone")


def test_another_artifact_or_schema_is_refused(backbone: Path) -> None:
    path = backbone / "backbone.json"
    manifest = read_json(path)
    write_json(path, {**manifest, "schema_version": 99})
    with pytest.raises(ContractError, match="has schema_version 99, this natix reads 3"):
        contracts.read_manifest(backbone, "backbone")
    write_json(path, {**manifest, "artifact": "bundle"})
    with pytest.raises(ContractError, match="must be a backbone document, got 'bundle'"):
        contracts.read_manifest(backbone, "backbone")


def test_a_manifest_that_was_edited_is_refused_and_one_that_was_only_laid_out_anew_is_not(backbone: Path) -> None:
    path = backbone / "backbone.json"
    manifest = read_json(path)
    path.write_text(json.dumps(manifest, indent=7, ensure_ascii=True))
    assert contracts.read_manifest(backbone, "backbone") == manifest
    write_json(path, {**manifest, "revision": "other"})
    with pytest.raises(ContractError, match=r"backbone.json was changed after it was written: its digest"):
        contracts.read_manifest(backbone, "backbone")
    write_json(path, {key: value for key, value in manifest.items() if key != "digest"})
    with pytest.raises(ContractError, match=r"backbone.json: digest is missing"):
        contracts.read_manifest(backbone, "backbone")


def test_a_manifest_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"one")
    with pytest.raises(ContractError, match=r"backbone.json: image_std.1 must be greater than 0, got 0.0"):
        contracts.write_manifest(tmp_path, "backbone", {**BACKBONE, "image_std": [0.2, 0.0, 0.2]})
    assert not (tmp_path / "backbone.json").exists()


def test_every_input_of_a_step_is_an_output_of_an_earlier_one() -> None:
    made: set[str] = set()
    for step in contracts.TASKS.values():
        assert set(step.inputs) <= made
        made |= set(step.outputs)
    assert made == set(contracts.ARTIFACTS)
