from pathlib import Path

import pytest
from sklearn.metrics import log_loss

from natix_lib.decisions import Policy
from natix_lib.decisions.score import softmax
from natix_lib.errors import CalibrationError
from natix_lib.files import read_json
from natix_lib.logits import read_labels, read_logits
from natix_lib.steps import calibrate
from tests.calibration_sets import write_set


def run(folder: Path, paths: tuple[str, str], **settings: object) -> dict:
    wanted = {"bootstrap": 100, **settings}
    calibrate.run({"scrc": wanted}, *paths, str(folder / "scrcparams"), str(folder / "curve"))
    return read_json(folder / "scrcparams")


def test_the_accept_rule_is_certified_and_the_runtime_follows_it(tmp_path: Path) -> None:
    paths = write_set(tmp_path, strength=2.0)
    document = run(tmp_path, paths, alpha=0.05)
    guarantee = document["guarantee"]
    assert guarantee["certified"] and guarantee["upper_bound"] <= 0.05 and guarantee["unit"] == "group"
    decisions = Policy.from_document(document).apply(read_logits(paths[0]).values)
    assert decisions.accepted.sum() == guarantee["m"]
    assert decisions.accepted.mean() == document["coverage"]


def test_the_temperature_lowers_the_loss_that_sklearn_computes(tmp_path: Path) -> None:
    paths = write_set(tmp_path, strength=2.0)
    document = run(tmp_path, paths)
    logits, labels = read_logits(paths[0]).values.astype(float), read_labels(paths[1]).values
    after = log_loss(labels, softmax(logits / document["temperature"]))
    assert document["calibration_loss"] == pytest.approx(after)
    assert document["metrics"]["after"]["nll"] == pytest.approx(after)
    assert document["metrics"]["before"]["nll"] == pytest.approx(log_loss(labels, softmax(logits)))
    low, high = document["metrics"]["intervals"]["nll_difference"]
    assert low < after - document["metrics"]["before"]["nll"] < high


def test_one_image_of_each_group_is_certified(tmp_path: Path) -> None:
    document = run(tmp_path, write_set(tmp_path, frames=4, strength=4.0), alpha=0.1)
    assert document["guarantee"]["n"] == 150 and document["guarantee"]["unit"] == "group"


def test_what_cannot_be_certified_fails_unless_told_otherwise(tmp_path: Path) -> None:
    paths = write_set(tmp_path, n=60, strength=2.0)
    with pytest.raises(CalibrationError, match="zero coverage: needs at least 72 groups at alpha 0.05, delta 0.1"):
        run(tmp_path, paths)
    assert not (tmp_path / "scrcparams").exists()
    empirical = run(tmp_path, paths, on_infeasible="empirical")
    assert not empirical["guarantee"]["certified"] and empirical["coverage"] > 0
    assert empirical["selective_risk"] <= 0.05
    abstaining = run(tmp_path, paths, on_infeasible="abstain")
    assert abstaining["accept"]["mode"] == "abstain_all" and abstaining["selective_risk"] is None


def test_a_model_that_is_always_wrong_has_no_empirical_rule(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no threshold has an empirical risk of at most scrc.alpha 0.05"):
        run(tmp_path, write_set(tmp_path, strength=-9.0), on_infeasible="empirical")


def test_a_model_that_is_always_right_accepts_all(tmp_path: Path) -> None:
    document = run(tmp_path, write_set(tmp_path, strength=20.0))
    assert (document["accept"]["mode"], document["fit"]["status"]) == ("accept_all", "separable")


def test_a_constant_prediction_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="constant prediction"):
        run(tmp_path, write_set(tmp_path, constant=True))
    assert not (tmp_path / "scrcparams").exists()
