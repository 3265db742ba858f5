from pathlib import Path

import numpy as np
import pytest

from natix_lib.bundle.runtime import Bundle
from natix_lib.contracts import read_manifest
from natix_lib.data.sets import open_set
from natix_lib.decisions.score import predictions_and_log_odds
from natix_lib.errors import BundleError, ConfigError, ContractError, StorageError
from natix_lib.files import read_json, write_json
from natix_lib.logits import read_logits
from natix_lib.steps import export
from tests.cloud_storage import BUCKET, Cloud
from tests.small_run import Chain
from tests.street_sets import run_step


def test_a_bundle_holds_one_policy_its_model_splits_and_golden_images(chain: Chain) -> None:
    bundle = Path(chain.paths["bundle"])
    manifest = read_manifest(bundle, "bundle")
    names = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert {"model.onnx", "model.safetensors", "config.json", "scrcparams.json", "splits.json", "LICENSE.md"} < names
    assert "thresholds.json" not in names and "golden/golden.json" in names
    assert manifest["policy"]["step"] == "calibrate"
    assert max(manifest["parity"]["golden"], manifest["parity"]["val_calib"]) < manifest["parity"]["tolerance"]
    assert set(manifest["files"]) == names - {"bundle.json"}


def test_no_file_of_a_bundle_names_a_place_on_the_machine_that_made_it(chain: Chain) -> None:
    place = str(Path(chain.paths["bundle"]).parent).encode()
    assert [path.name for path in Path(chain.paths["bundle"]).rglob("*.*") if place in path.read_bytes()] == []


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bundle(chain: Chain, tmp_path: Path) -> None:
    chain.export(tmp_path / "again")
    first, second = (read_manifest(folder, "bundle") for folder in (chain.paths["bundle"], tmp_path / "again"))
    assert first == second


@pytest.mark.slow
def test_the_other_policy_ships_when_it_is_named(chain: Chain, tmp_path: Path) -> None:
    chain.export(tmp_path / "b", {"policy": "sweep"})
    assert (tmp_path / "b" / "thresholds.json").is_file() and not (tmp_path / "b" / "scrcparams.json").exists()


def test_no_policy_named_is_an_error(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"export.policy must name the one policy that ships, sweep or calibrate"):
        export.run({"export": {}}, **chain.inputs("export"), bundle=str(tmp_path / "b"))
    with pytest.raises(ConfigError, match="got 'both'"):
        chain.export(tmp_path / "b", {"policy": "both"})


def test_logits_of_another_model_are_refused(chain: Chain, tmp_path: Path) -> None:
    document = read_json(chain.paths["scrcparams"])
    document["provenance"]["model_sha256"] = "other"
    write_json(tmp_path / "scrcparams.json", document)
    with pytest.raises(ContractError, match=r"model_sha256 differs: classifier has .*, scrcparams.json has 'other'"):
        chain.export(tmp_path / "b", scrcparams=tmp_path / "scrcparams.json")
    assert not (tmp_path / "b").exists()


def test_a_policy_of_other_logits_is_refused(chain: Chain, tmp_path: Path) -> None:
    document = read_json(chain.paths["thresholds"])
    document["provenance"]["logits_sha256"] = "other"
    write_json(tmp_path / "thresholds.json", document)
    with pytest.raises(ContractError, match="logits_sha256 differs"):
        chain.export(tmp_path / "b", {"policy": "sweep"}, thresholds=tmp_path / "thresholds.json")


def test_other_splits_are_refused(chain: Chain, tmp_path: Path) -> None:
    other, _ = run_step("split", {"split": {"seed": 5}}, tmp_path, chain.paths)
    with pytest.raises(ContractError, match=r"splits_sha256 differs: val_calib_set has .*, splits.json has"):
        chain.export(tmp_path / "b", splits=other["splits"])
    with pytest.raises(ContractError, match="splits_sha256 differs: classifier has"):
        chain.export(tmp_path / "b", splits=other["splits"], val_calib_set=other["val_calib_set"])
    with pytest.raises(ContractError, match=r"splits_sha256 differs: bundle has .*, test_set has"):
        run_step("evaluate", {"evaluate": {}}, tmp_path / "e", {**chain.paths, "test_set": other["test_set"]})


@pytest.mark.slow
def test_a_parity_that_is_not_reached_is_an_error_and_leaves_no_manifest(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"the ONNX model differs from the \w+ logits by .*parity_tolerance 1e-12"):
        chain.export(tmp_path / "b", {"parity_tolerance": 1e-12})
    assert not (tmp_path / "b" / "bundle.json").exists()
    with pytest.raises(ContractError, match=r"has no bundle.json: it was never finished"):
        Bundle.load(tmp_path / "b")


@pytest.mark.slow
def test_a_bundle_is_published_once(chain: Chain, tmp_path: Path, cloud: Cloud) -> None:
    place = {"publish_uri": f"gs://{BUCKET}/models/v1"}
    chain.export(tmp_path / "a", place)
    assert cloud.holds("models/v1/bundle.json") and cloud.holds("models/v1/golden/golden.json")
    with pytest.raises(StorageError, match=r"already holds bundle.json, name another place"):
        chain.export(tmp_path / "b", place)


def test_the_reference_of_drift_is_of_one_image_a_group_of_val_calib(chain: Chain) -> None:
    drift = read_json(Path(chain.paths["bundle"]) / "drift.json")
    images = open_set(chain.paths["val_calib_set"], "VAL_CALIB")
    groups = len(set(images.groups))
    assert drift["unit"] == "group" and drift["images"] == groups < len(images)
    log_odds = predictions_and_log_odds(read_logits(chain.paths["val_calib_logits"]).values)[1]
    first, last = drift["first_level"], drift["first_level"] + len(drift["counts"])
    assert log_odds.min() - drift["width"] < first * drift["width"] and last * drift["width"] <= log_odds.max() + 0.125
    sizes = [image.width * image.height for image in map(images.image, range(len(images)))]
    assert drift["looks"]["images"] == len(images)
    assert drift["looks"]["pixels"] == np.quantile(sizes, [0.05, 0.5, 0.95]).round(3).tolist()
