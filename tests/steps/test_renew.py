"""A bundle's policy renewed step by step: obtain, divide, score, calibrate, renew, evaluate."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from natix_lib.bundle.runtime import Bundle
from natix_lib.contracts import ARTIFACTS, RECALIBRATION, TASKS
from natix_lib.data.sets import open_set
from natix_lib.errors import ContractError, DataError, StorageError
from natix_lib.files import read_json, write_json
from natix_lib.logits import read_pair
from natix_lib.steps import divide, obtain, renew
from tests.small_run import Chain
from tests.street_sets import ingest_settings, ingested, write_images

SETTINGS: dict[str, dict[str, Any]] = {
    "divide": {"split": {}, "recalibrate": {}},
    "score": {},
    "calibrate": {"scrc": {"alpha": 0.4, "delta": 0.2, "bootstrap": 20}},
    "renew": {},
    "evaluate": {"evaluate": {"bootstrap": 20}},
}


def new_images(folder: Path) -> Path:
    """Images of groups that the chain's own 40 do not have."""
    write_images(folder / "all", groups=76)
    (folder / "new").mkdir()
    lines = (folder / "all" / "manifest.csv").read_text().splitlines()
    kept = [line for line in lines[1:] if int(line[:2]) >= 40]
    for line in kept:
        name = line.split(",")[0]
        shutil.copyfile(folder / "all" / name, folder / "new" / name)
    (folder / "new" / "manifest.csv").write_text("\n".join([lines[0], *kept]) + "\n")
    return folder / "new"


@pytest.fixture(scope="module")
def renewed(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The paths of what a recalibration of the chain's bundle with new images has made."""
    folder = tmp_path_factory.mktemp("renewed")
    settings = {
        **SETTINGS,
        "ingest": ingest_settings(new_images(folder)),
        "obtain": {"bundle": chain.paths["bundle"]},
    }
    paths: dict[str, str] = {}
    for step in RECALIBRATION:
        made = {name: str(folder / ARTIFACTS[name].file) for name in TASKS[step].outputs}
        taken = {name: paths[name] for name in TASKS[step].inputs}
        importlib.import_module(f"natix_lib.steps.{step}").run(settings[step], **taken, **made)
        paths |= made
    return paths


def again(renewed: dict[str, str], out: Path, **changed: str) -> Path:
    """The new bundle once more at `out`, with other artifacts or settings."""
    inputs = {name: renewed[name] for name in TASKS["renew"].inputs}
    settings = {key: changed.pop(key) for key in ("publish_uri",) if key in changed}
    renew.run(settings, **{**inputs, **changed}, bundle=str(out))
    return out


def test_the_new_bundle_has_the_old_model_a_new_policy_and_new_splits_and_names_the_old_one(
    chain: Chain, renewed: dict[str, str]
) -> None:
    old, new = Bundle.load(chain.paths["bundle"]), Bundle.load(renewed["bundle"])
    for name in ("model.onnx", "model.safetensors", "golden/golden.json"):
        assert new.manifest["files"][name] == old.manifest["files"][name]
    origin = new.manifest["provenance"]
    assert origin["renewed_from"] == old.documents.sha256
    assert origin["dataset_fingerprint"] != old.manifest["provenance"]["dataset_fingerprint"]
    assert new.manifest["parity"] == old.manifest["parity"]
    assert new.documents.splits["roles"]["TRAIN"] == []


def test_its_promise_is_of_the_new_images_one_of_each_group(renewed: dict[str, str]) -> None:
    new = Bundle.load(renewed["bundle"])
    guarantee, splits = new.documents.policy["guarantee"], new.documents.splits
    groups = {splits["groups"][name] for name in splits["roles"]["VAL_CALIB"]}
    assert guarantee["n"] == len(groups) and guarantee["unit"] == "group" and guarantee["alpha"] == 0.4
    assert all(int(name[:2]) >= 40 for names in splits["roles"].values() for name in names)
    assert read_json(renewed["evaluation"])["n"] == len(splits["roles"]["TEST"])


def test_its_logits_are_those_of_the_bundle_and_stand_beside_their_labels(renewed: dict[str, str]) -> None:
    images = open_set(renewed["val_calib_set"], "VAL_CALIB")
    pair = read_pair(renewed["val_calib_logits"], renewed["val_calib_labels"])
    assert pair.labels.tolist() == images.labels.tolist()
    expected = Bundle.load(renewed["bundle"]).logits(images.image(row) for row in range(3))
    assert np.allclose(pair.logits[:3], expected, atol=1e-5)


def test_images_that_the_model_was_fitted_on_are_left_out_and_what_is_left_keeps_to_three_roles(
    chain: Chain, tmp_path: Path
) -> None:
    paths = ingested(tmp_path, groups=40)
    out = {name: str(tmp_path / "out" / ARTIFACTS[name].file) for name in TASKS["divide"].outputs}
    given = {name: paths[name] for name in ("images", "index")}
    divide.run(SETTINGS["divide"], **given, old_bundle=chain.paths["bundle"], **out)
    before, after = read_json(chain.paths["splits"]), read_json(out["splits"])
    seen = {*before["roles"]["TRAIN"], *before["roles"]["VAL_SELECT"]}
    assert {name for name, reason in after["left_out"].items() if reason == "trained on"} >= seen
    assert not seen & {name for names in after["roles"].values() for name in names}
    assert f"{len(after['left_out'])} of 120 images are left out" in " ".join(after["warnings"])


def test_where_nothing_is_left_the_error_counts_what_was_left_out(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ingested(tmp_path, groups=40)
    monkeypatch.setattr("natix_lib.data.trained.FITTED_ON", ("TRAIN", "VAL_SELECT", "VAL_CALIB", "TEST"))
    out = {name: str(tmp_path / "out" / ARTIFACTS[name].file) for name in TASKS["divide"].outputs}
    given = {name: paths[name] for name in ("images", "index")}
    with pytest.raises(DataError, match="no image is left to divide: 120 of 120 images are left out"):
        divide.run(SETTINGS["divide"], **given, old_bundle=chain.paths["bundle"], **out)


def test_what_the_model_was_fitted_on_is_carried_on_from_bundle_to_bundle(
    chain: Chain, renewed: dict[str, str]
) -> None:
    before, after = read_json(chain.paths["splits"]), read_json(renewed["splits"])
    fitted = len(before["roles"]["TRAIN"]) + len(before["roles"]["VAL_SELECT"])
    assert len(after["trained"]["pixels"]) >= 16 * fitted and after["trained"]["looks"]


def test_a_changed_bundle_and_another_than_was_told_are_refused(chain: Chain, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(chain.paths["bundle"], changed)
    policy = read_json(changed / "scrcparams.json")
    write_json(changed / "scrcparams.json", {**policy, "temperature": policy["temperature"] * 2})
    with pytest.raises(ContractError, match=r"scrcparams\.json"):
        obtain.run({"bundle": str(changed)}, old_bundle=str(tmp_path / "out"))
    with pytest.raises(StorageError, match=r"recalibrate\.bundle .* was changed since this run began"):
        given = {"bundle": chain.paths["bundle"]}
        obtain.run(given, old_bundle=str(tmp_path / "out"), bundle_fingerprint="0" * 64)


def test_a_policy_of_other_logits_or_splits_is_refused(chain: Chain, renewed: dict[str, str], tmp_path: Path) -> None:
    for name, what in (("scrcparams", "_sha256"), ("val_calib_logits", "logits_sha256"), ("splits", "splits_sha256")):
        with pytest.raises(ContractError, match=f"{what} differs"):
            again(renewed, tmp_path / name, **{name: chain.paths[name]})
        assert not (tmp_path / name / "bundle.json").exists()


def test_classes_of_other_names_are_refused(chain: Chain, tmp_path: Path) -> None:
    source = new_images(tmp_path)
    manifest = source / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("Roadwork", "Works"))
    from natix_lib.steps import ingest

    made = {name: str(tmp_path / ARTIFACTS[name].file) for name in TASKS["ingest"].outputs}
    ingest.run(ingest_settings(source), **made)
    out = {name: str(tmp_path / "out" / ARTIFACTS[name].file) for name in TASKS["divide"].outputs}
    with pytest.raises(ContractError, match=r"data\.class_names differs: the bundle has .*'Roadwork'.* the new images"):
        given = {name: made[name] for name in ("images", "index")}
        divide.run(SETTINGS["divide"], **given, old_bundle=chain.paths["bundle"], **out)


def test_the_new_bundle_is_published_once(renewed: dict[str, str], tmp_path: Path) -> None:
    place = tmp_path / "published"
    again(renewed, tmp_path / "one", publish_uri=str(place))
    assert Bundle.load(place).documents.sha256 == Bundle.load(renewed["bundle"]).documents.sha256
    with pytest.raises(StorageError):
        again(renewed, tmp_path / "two", publish_uri=str(place))
