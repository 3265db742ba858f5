from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from natix_lib.decisions import Policy
from natix_lib.errors import CalibrationError, ConfigError
from natix_lib.files import sha256_file
from natix_lib.logits import read_labels, read_logits
from tests.calibration_sets import run_on_set, write_set


def run(folder: Path, paths: tuple[str, str], **settings: object) -> dict:
    return run_on_set("sweep", {"sweep": settings}, folder, paths)


def test_the_document_says_what_the_runtime_will_do(tmp_path: Path) -> None:
    paths = write_set(tmp_path, strength=1.5)
    document = run(tmp_path, paths)
    logits, labels = read_logits(paths[0]).values, read_labels(paths[1]).values
    decisions = Policy.from_document(document).apply(logits)
    assert decisions.accepted.sum() == document["n_accepted"]
    assert (decisions.prediction != labels)[decisions.accepted].sum() == document["n_errors"]
    assert document["method"] == "global_threshold" and len(document["table"]) == 17


def test_a_cut_that_mends_a_model_which_prefers_a_class_ships_at_one_half(tmp_path: Path) -> None:
    paths = write_set(tmp_path, strength=1.5, prefers_last=2.0)
    document = run(tmp_path, paths)
    logits, labels = read_logits(paths[0]).values, read_labels(paths[1]).values
    decisions, trial = Policy.from_document(document).apply(logits), document["cut_trial"]
    assert document["decision"]["value"] >= np.corrcoef(labels, decisions.prediction)[0, 1] - 1e-9
    assert np.corrcoef(labels, decisions.score > 0.5)[0, 1] == pytest.approx(document["decision"]["value"])
    assert (
        trial["kept"] and trial["reason"] == "" and trial["p_value"] < 0.05 and document["decision"]["cut_logodds"] > 1
    )
    assert trial["value_at_half"] == pytest.approx(np.corrcoef(labels, decisions.prediction)[0, 1])


def test_a_cut_that_is_better_by_chance_is_not_shipped_and_the_file_says_why(tmp_path: Path) -> None:
    paths = write_set(tmp_path, n=60, strength=1.5)
    document = run(tmp_path, paths)
    trial = document["cut_trial"]
    assert document["decision"] is None and not trial["kept"] and trial["value"] > trial["value_at_half"]
    assert "does not beat 0.5 by more than chance where it was not tuned" in trial["reason"]
    decisions = Policy.from_document(document).apply(read_logits(paths[0]).values)
    assert ((decisions.score > 0.5) == (decisions.prediction == 1)).all()


def test_the_document_carries_its_origin(tmp_path: Path) -> None:
    paths = write_set(tmp_path)
    provenance = run(tmp_path, paths)["provenance"]
    assert provenance["logits_sha256"] == sha256_file(paths[0])
    assert provenance["labels_sha256"] == sha256_file(paths[1])
    assert (provenance["model_sha256"], provenance["role"]) == ("model", "VAL_CALIB")


def test_the_curve_has_a_row_for_each_reachable_coverage(tmp_path: Path) -> None:
    run(tmp_path, write_set(tmp_path))
    curve = pq.read_table(tmp_path / "sweep_curve.parquet").to_pandas()
    assert curve["accepted"].iloc[-1] == 600 and curve["accepted"].is_monotonic_increasing


def test_no_cut_is_tuned_when_none_is_asked_for(tmp_path: Path) -> None:
    document = run(tmp_path, write_set(tmp_path, prefers_last=2.0), tune_cut=False)
    assert document["decision"] is None and document["cut_trial"] is None


def test_a_constant_prediction_of_a_rarer_class_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="constant prediction: the model says class 0 for all .* of class 1"):
        run(tmp_path, write_set(tmp_path, constant=True, last=0.9))
    assert not (tmp_path / "thresholds.json").exists()


def test_a_constant_prediction_of_the_common_class_gives_a_policy_and_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run(tmp_path, write_set(tmp_path, constant=True, last=0.03))
    said = "constant prediction: the model says None for all 600 images of VAL_CALIB and never Roadwork"
    assert document["warning"].startswith(said) and said in capsys.readouterr().out
    assert document["coverage"] > 0.9 and document["selective_risk"] < 0.05


def test_zero_coverage_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="zero coverage"):
        run(tmp_path, write_set(tmp_path, strength=-4.0), objective="coverage_at_risk", max_risk=0.001)


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sweep.objektive is not a known key, did you mean objective"):
        run(tmp_path, write_set(tmp_path), objektive="mcc")
