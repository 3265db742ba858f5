import html
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from natix_lib import contracts
from natix_lib.config import Scrc, parse
from natix_lib.contracts import check_document
from natix_lib.decisions import Policy
from natix_lib.decisions.promise import is_certified, promise
from natix_lib.decisions.score import softmax
from natix_lib.errors import CalibrationError, ConfigError, ContractError
from natix_lib.files import sha256_file
from natix_lib.logits import read_labels, read_logits, write_labels, write_logits
from natix_lib.reports.render import render_policy
from tests.calibration_sets import add_tags, run_on_set, write_set

STEPS = {"sweep": "sweep", "calibrate": "scrc"}
SELECT = {"role": "VAL_SELECT"}  # in the header


def run(folder: Path, paths: tuple[str, str], **settings: object) -> dict:
    section = {"bootstrap": 100, **settings}
    return run_on_set("calibrate", {"scrc": section}, folder, paths)


def run_with_select(folder: Path, paths: tuple[str, str], select: tuple[str, str], **settings: object) -> dict:
    others = {"val_select_logits": select[0], "val_select_labels": select[1]}
    return run_on_set("calibrate", {"scrc": {"bootstrap": 100, **settings}}, folder, paths, **others)


def test_the_accept_rule_is_certified_and_the_runtime_follows_it(tmp_path: Path) -> None:
    paths = write_set(tmp_path, strength=2.0)
    document = run(tmp_path, paths, alpha=0.05)
    guarantee = document["guarantee"]
    assert guarantee["certified"] and guarantee["upper_bound"] <= 0.05 and guarantee["unit"] == "group"
    decisions = Policy.from_document(document).apply(read_logits(paths[0]).values)
    assert decisions.accepted.sum() == guarantee["m"]
    assert decisions.accepted.mean() == document["coverage"]


def test_val_select_of_the_same_weights_is_read_and_named_where_the_policy_comes_from(tmp_path: Path) -> None:
    paths = write_set(tmp_path)
    assert run(tmp_path, paths)["provenance"]["val_select_logits_sha256"] is None
    select = write_set(tmp_path, n=90, seed=1, changes=SELECT)
    provenance = run_with_select(tmp_path, paths, select)["provenance"]
    assert provenance["val_select_logits_sha256"] == sha256_file(Path(select[0])) != provenance["logits_sha256"]


@pytest.mark.parametrize("key", ["model_sha256", "splits_sha256", "dataset_fingerprint"])
def test_val_select_of_other_weights_or_another_division_is_refused(tmp_path: Path, key: str) -> None:
    paths, select = write_set(tmp_path), write_set(tmp_path, seed=1, changes={**SELECT, key: "other"})
    message = f"{key} differs: VAL_CALIB logits has '.*', VAL_SELECT logits has 'other'"
    with pytest.raises(ContractError, match=message):
        run_with_select(tmp_path, paths, select)


def test_val_select_of_other_classes_is_refused(tmp_path: Path) -> None:
    paths, select = write_set(tmp_path), write_set(tmp_path, changes=SELECT, names=("None", "Works"))
    with pytest.raises(ContractError, match=r"class_names differs: .*'Roadwork'.*, VAL_SELECT logits has .*'Works'"):
        run_with_select(tmp_path, paths, select)


def test_val_calib_in_the_place_of_val_select_is_refused(tmp_path: Path) -> None:
    paths = write_set(tmp_path)
    with pytest.raises(ContractError, match="must be a val_select_logits file of schema 3, got 'val_calib_logits'"):
        run_with_select(tmp_path, paths, paths)


def test_half_of_val_select_is_refused(tmp_path: Path) -> None:
    paths, select = write_set(tmp_path), write_set(tmp_path, changes=SELECT)
    with pytest.raises(ContractError, match="logits of VAL_SELECT are given without its labels: give both files or"):
        run_with_select(tmp_path, paths, (select[0], ""))


def test_a_pt_of_the_first_trainer_goes_without_val_select_alone(tmp_path: Path) -> None:
    select = write_set(tmp_path, changes=SELECT)
    paths, bare = write_set(tmp_path), (str(tmp_path / "logits.pt"), str(tmp_path / "labels.pt"))
    torch.save(torch.from_numpy(read_logits(paths[0]).values), bare[0])
    torch.save(torch.from_numpy(read_labels(paths[1]).values), bare[1])
    assert run(tmp_path, bare)["provenance"]["model_sha256"] is None
    with pytest.raises(
        ContractError, match="VAL_SELECT and VAL_CALIB together need provenance, got a bare .pt of VAL_C"
    ):
        run_with_select(tmp_path, bare, select)
    with pytest.raises(ContractError, match="together need provenance, got a bare .pt of VAL_SELECT"):
        run_with_select(tmp_path, paths, bare)


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


def test_what_cannot_be_certified_is_marked_and_fails_where_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_set(tmp_path, n=40, strength=2.5)
    with pytest.raises(
        CalibrationError,
        match=r"zero coverage: needs at least 45 groups at scrc.alpha 0.05, scrc.delta 0.1, has 40; .*on_infeasible: e",
    ):
        run(tmp_path, paths, on_infeasible="fail")
    assert not (tmp_path / "scrcparams.json").exists()
    empirical = run(tmp_path, paths)
    mark = "uncertified: the accept rule carries no guarantee: needs at least 45 groups at alpha 0.05"
    assert f"warning: {mark}" in capsys.readouterr().out
    page = (tmp_path / "calibration.html").read_text()
    assert mark in page and '<span class="soft">uncertified</span>' in page
    assert not empirical["guarantee"]["certified"] and empirical["coverage"] > 0
    assert empirical["selective_risk"] <= 0.05
    abstaining = run(tmp_path, paths, on_infeasible="abstain")
    assert abstaining["accept"]["mode"] == "abstain_all" and abstaining["selective_risk"] is None


def test_a_model_that_is_always_wrong_has_no_empirical_rule_and_accepts_nothing(tmp_path: Path) -> None:
    document = run(tmp_path, write_set(tmp_path, strength=-9.0))
    assert (document["accept"]["mode"], document["coverage"]) == ("abstain_all", 0)
    assert "so nothing is accepted" in (tmp_path / "calibration.html").read_text()


def test_a_model_that_is_always_right_accepts_all(tmp_path: Path) -> None:
    document = run(tmp_path, write_set(tmp_path, strength=20.0))
    assert (document["accept"]["mode"], document["fit"]["status"]) == ("accept_all", "separable")
    assert document["fit"]["reason"].startswith("no prediction is wrong: T is the sharpest that 600 groups")
    assert document["fit"]["reason"] in (tmp_path / "calibration.html").read_text()


@pytest.mark.slow
def test_neither_the_order_of_the_rows_nor_a_seed_changes_the_certificate(tmp_path: Path) -> None:
    paths = write_set(tmp_path, n=900, frames=3, strength=2.0)
    logits, labels = read_logits(paths[0]), read_labels(paths[1])
    options = {"alpha": 0.15, "sets": "pac", "sets_alpha": 0.2}
    one = run(tmp_path, paths, **options)
    assert labels.groups is not None
    order = np.random.default_rng(0).permutation(900)
    names = np.random.default_rng(1).permutation(300)
    write_logits(paths[0], logits.values[order], logits.header)
    write_labels(paths[1], labels.values[order], names[labels.groups[order]], labels.header)
    other = run(tmp_path, paths, **options)
    assert one["sets"].pop("threshold") == pytest.approx(other["sets"].pop("threshold"), rel=1e-9)
    for part in ("accept", "guarantee", "sets"):
        assert one[part] == other[part], part
    with pytest.raises(ConfigError, match="scrc.seed is not a known key"):
        run(tmp_path, paths, seed=1)


def test_an_unchanged_temperature_has_no_interval_of_what_it_changed(tmp_path: Path) -> None:
    document = run(tmp_path, write_set(tmp_path, n=12, strength=9.0), on_infeasible="empirical")
    assert document["temperature"] == 1.0
    assert document["metrics"]["intervals"] == {"nll_difference": None, "brier_difference": None}


def test_a_constant_prediction_of_a_rarer_class_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="constant prediction: the model says class 0 for all .* of class 1"):
        run(tmp_path, write_set(tmp_path, constant=True, last=0.9))
    assert not (tmp_path / "scrcparams.json").exists()


def test_a_constant_prediction_of_the_common_class_gives_a_policy_and_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run(tmp_path, write_set(tmp_path, constant=True, last=0.03))
    said = "constant prediction: the model says None for all 600 images of VAL_CALIB and never Roadwork"
    assert document["warning"].startswith(said) and said in capsys.readouterr().out
    assert document["coverage"] > 0.9 and document["selective_risk"] < 0.05


def test_prediction_sets_use_the_half_that_the_rule_has_not_seen(tmp_path: Path) -> None:
    paths = write_set(tmp_path, n=2000, strength=2.0, frames=2)
    document = run(tmp_path, paths, alpha=0.1, sets="pac", sets_alpha=0.1)
    assert document["guarantee"]["n"] == 500 and document["sets"]["unit"] == "group"
    assert document["sets"]["certified"] and document["sets"]["upper_bound"] <= 0.1
    assert document["sets"]["m"] <= 500 and "confidence 1 - delta" in document["sets"]["promise"]
    decisions = Policy.from_document(document).apply(read_logits(paths[0]).values)
    labels = read_labels(paths[1]).values
    assert decisions.sets is not None
    missed = ~decisions.sets[np.arange(len(labels)), labels]
    assert missed[decisions.accepted].mean() < 0.1


def test_scrc_i_promises_an_average_and_says_so(tmp_path: Path) -> None:
    sets = run(tmp_path, write_set(tmp_path, n=2000, strength=2.0), alpha=0.1, sets="scrc_i")["sets"]
    assert not sets["certified"] and sets["delta"] is None and "for this one it may be more" in sets["promise"]


def test_too_few_images_for_sets_admit_every_class_and_say_why(tmp_path: Path) -> None:
    paths = write_set(tmp_path, n=400, strength=3.0)
    document = run(tmp_path, paths, alpha=0.1, sets="pac", sets_alpha=0.001)
    assert document["sets"]["threshold"] == 1.0 and "needs at least 2302 accepted" in document["sets"]["reason"]
    sets = Policy.from_document(document).apply(read_logits(paths[0]).values).sets
    assert sets is not None and sets.all()


def test_val_select_says_where_the_test_starts_and_more_is_accepted(tmp_path: Path) -> None:
    paths = write_set(tmp_path, strength=1.5, n=1000)
    alone = run(tmp_path, paths)
    started = run_with_select(tmp_path, paths, write_set(tmp_path, strength=1.5, n=1000, seed=1, changes=SELECT))
    assert [each["guarantee"]["procedure"] for each in (alone, started)] == ["band", "band and chain"]
    assert alone["guarantee"]["certified"] and started["guarantee"]["m"] > alone["guarantee"]["m"]


def test_misses_and_false_alarms_are_counted_in_the_file_and_on_the_page(tmp_path: Path) -> None:
    paths = write_set(tmp_path, strength=2.0)
    document = run(tmp_path, paths, alpha=0.1)
    decisions, labels = Policy.from_document(document).apply(read_logits(paths[0]).values), read_labels(paths[1]).values
    cleared, called = (decisions.accepted & (decisions.prediction == each) for each in (0, 1))
    seen = document["observed"]
    assert (seen["missed"]["n"], seen["missed"]["k"]) == ((labels == 1).sum(), (cleared & (labels == 1)).sum())
    assert (seen["false_alarms"]["n"], seen["false_alarms"]["k"]) == (called.sum(), (called & (labels == 0)).sum())
    assert seen["risk"]["value"] == document["selective_risk"]
    page = (tmp_path / "calibration.html").read_text()
    assert f"{seen['missed']['k']} of {seen['missed']['n']} (" in page and "observed on VAL_CALIB, no promise" in page


def test_the_page_shows_the_plots(tmp_path: Path) -> None:
    run(tmp_path, write_set(tmp_path, strength=2.0))
    html = (tmp_path / "calibration.html").read_text()
    assert '<span class="soft">certified</span>' in html and "uncertified" not in html
    assert html.count("<svg") == 5 and "Reliability after the temperature" in html


@pytest.mark.slow
@pytest.mark.parametrize("step", ["sweep", "calibrate"])
def test_a_step_on_the_cpu_imports_neither_torch_nor_sklearn_nor_pandas(tmp_path: Path, step: str) -> None:
    paths = write_set(tmp_path, n=1000, strength=2.0)
    code = (
        f"import json, sys; from natix_lib.steps import {step};"
        f"{step}.run({{'{STEPS[step]}': {{}}}}, **json.loads(sys.argv[1]));"
        "print([m for m in ('torch', 'sklearn', 'pandas', 'transformers') if m in sys.modules])"
    )
    artifacts = contracts.STEPS[step].outputs
    named = {
        **dict(zip(("val_calib_logits", "val_calib_labels"), paths, strict=True)),
        **{n: str(tmp_path / n) for n in artifacts},
    }
    command = [sys.executable, "-c", code, json.dumps(named)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_promises_that_are_asked_for_together_stand_in_file_and_page_and_bundle_words(tmp_path: Path) -> None:
    paths = write_set(tmp_path, n=3000, strength=4.0)
    section = {"scrc": {"alpha": 0.05, "misses": 0.1, "false_alarms": 0.1, "bootstrap": 50}}
    document = run_on_set("calibrate", section, tmp_path, paths)
    promises = document["guarantee"]["promises"]
    assert [each["kind"] for each in promises] == ["overall", "misses", "false_alarms"]
    assert all(each["certified"] and each["upper_bound"] <= each["alpha"] for each in promises)
    policy = Policy.from_document(document)
    decisions = policy.apply(read_logits(paths[0]).values)
    labels = read_labels(paths[1]).values
    cleared = decisions.accepted & (decisions.prediction == 0)
    assert promises[1]["k"] == (cleared & (labels == 1)).sum() and promises[1]["m"] == (labels == 1).sum()
    assert promise(document) == (
        "certified: of the accepted at most 0.05 are wrong; of the images with Roadwork at most 0.1 are accepted as "
        "something else; of those accepted as Roadwork at most 0.1 are something else, with a confidence of 0.9"
    )
    assert promise(document) in html.unescape(render_policy(document))


def test_a_promise_that_needs_more_than_there_is_is_named_and_the_others_hold(tmp_path: Path) -> None:
    section = {"scrc": {"alpha": 0.05, "misses": 0.001, "bootstrap": 50}}
    document = run_on_set("calibrate", section, tmp_path, write_set(tmp_path, n=3000, strength=4.0))
    overall, misses = document["guarantee"]["promises"]
    assert overall["certified"] and not misses["certified"] and not is_certified(document)
    assert promise(document) == (
        "uncertified: it is not promised that of the images with Roadwork at most 0.001 are accepted as something "
        f"else: {misses['reason']}; of the accepted at most 0.05 are wrong, with a confidence of 0.9"
    )
    assert misses["reason"].startswith("needs at least 2995 groups that it speaks of at alpha 0.001, delta 0.05, has 1")


def test_a_deployment_prior_is_in_logits_rule_page_and_promise(tmp_path: Path) -> None:
    paths = write_set(tmp_path, n=2000, last=0.3)
    select = write_set(tmp_path, n=2000, seed=1, changes=SELECT, last=0.3)
    plain = run_with_select(tmp_path, paths, select)
    assert "prior" not in plain and "bias" not in plain["accept"]
    document = run_with_select(tmp_path, paths, select, prior={"Roadwork": 0.03})
    assert document["prior"]["shares"] == pytest.approx({"None": 0.97, "Roadwork": 0.03})
    assert document["accept"]["bias"]["Roadwork"] < 0 < document["accept"]["bias"]["None"]
    assert (
        document["n"] == document["prior"]["drawn"] == document["guarantee"]["n"] < document["prior"]["images"] == 2000
    )
    assert document["calibration_loss"] < document["prior"]["nll_without"]
    assert promise(document).endswith("with a confidence of 0.9, where images in use are 0.97 None, 0.03 Roadwork")
    page = render_policy(document)
    assert "where images in use are 0.97 None" in page and "bias of its logit" in page
    probabilities = Policy.from_document(document).apply(read_logits(paths[0]).values).probabilities
    weights = np.array([0.97, 0.03])[read_labels(paths[1]).values] / np.array([0.7, 0.3])[read_labels(paths[1]).values]
    assert np.average(probabilities[:, 1], weights=weights) == pytest.approx(0.03, abs=0.01)


@pytest.mark.parametrize("sets", ["none", "pac"])
def test_a_deployment_prior_goes_with_misses_and_sets(tmp_path: Path, sets: str) -> None:
    paths = write_set(tmp_path, n=2000, last=0.3)
    select = write_set(tmp_path, n=2000, seed=1, changes=SELECT, last=0.3)
    document = run_with_select(tmp_path, paths, select, prior={"Roadwork": 0.03}, misses=0.2, sets=sets)
    counted = {each["kind"]: each["n"] for each in document["guarantee"]["promises"]}
    assert (counted["misses"] > 500) == (sets == "none") and counted["overall"] < 1900


def test_a_deployment_prior_without_val_select_or_of_unknown_classes_is_refused(tmp_path: Path) -> None:
    paths, select = write_set(tmp_path), write_set(tmp_path, seed=1, changes=SELECT)
    with pytest.raises(CalibrationError, match=r"scrc\.prior needs the logits and labels of VAL_SELECT"):
        run(tmp_path, paths, prior={"Roadwork": 0.03})
    with pytest.raises(CalibrationError, match=r"scrc\.prior must name classes of None, Roadwork, got 'roadwork'"):
        run_with_select(tmp_path, paths, select, prior={"roadwork": 0.03})
    with pytest.raises(ConfigError, match=r"scrc\.prior must sum to at most 1, got 1.2"):
        run(tmp_path, paths, prior={"Roadwork": 0.6, "None": 0.6})


def weather_of(n: int) -> dict[str, list[str | None]]:
    return {"weather": ["snow" if i < 5 else "rain" if i % 3 == 0 else "sun" for i in range(n)]}


def test_a_promise_of_each_slice_stands_in_file_and_page_and_the_one_that_needs_more_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_set(tmp_path, n=1200, strength=4.0)
    add_tags(paths, weather_of(1200))
    section = {"scrc": {"alpha": 0.05, "per_slice": 0.1, "slices": ["weather"], "bootstrap": 10}}
    document = run_on_set("calibrate", section, tmp_path, paths)
    check_document(document, "scrcparams", "scrcparams.json")
    overall, rain, snow, sun = document["guarantee"]["promises"]
    assert [each["of_slice"] for each in (overall, rain)] == [None, {"tag": "weather", "value": "rain"}]
    assert rain["certified"] and sun["certified"] and not snow["certified"] and snow["n"] == 5
    assert rain["n"] + sun["n"] == 1195
    sentence = promise(document)
    held = [
        f"of the accepted with weather={each}, known to be so or not, at most 0.1 are wrong" for each in ("rain", "sun")
    ]
    assert sentence == (
        "uncertified: it is not promised that of the accepted with weather=snow, known to be so or not, at most 0.1 "
        f"are wrong: {snow['reason']}; of the accepted at most 0.05 are wrong; {'; '.join(held)}, with a confidence "
        "of 0.9"
    )
    assert sentence in html.unescape((tmp_path / "calibration.html").read_text())
    assert f"warning: {sentence}" in capsys.readouterr().out
    section["scrc"]["slices"] = ["weather=rain", "weather=sun"]
    assert is_certified(run_on_set("calibrate", section, tmp_path, paths))


def test_slices_of_val_select_help_to_choose_and_may_be_missing(tmp_path: Path) -> None:
    paths, select = write_set(tmp_path, n=600), write_set(tmp_path, n=600, seed=1, changes=SELECT)
    add_tags(paths, weather_of(600))
    others = {"val_select_logits": select[0], "val_select_labels": select[1]}
    section = {"scrc": {"alpha": 0.1, "per_slice": 0.2, "slices": ["weather=rain"], "bootstrap": 10}}
    assert is_certified(run_on_set("calibrate", section, tmp_path, paths, **others))
    add_tags(select, weather_of(600), "VAL_SELECT")
    assert is_certified(run_on_set("calibrate", section, tmp_path, paths, **others))


def test_slices_that_are_not_in_the_labels_are_named_in_one_line(tmp_path: Path) -> None:
    paths = write_set(tmp_path)
    section = {"scrc": {"per_slice": 0.1, "slices": ["weather=fog"]}}
    with pytest.raises(
        ContractError, match=r"labels of VAL_CALIB have no tags, and scrc.slices asks for weather=fog: tra"
    ):
        run_on_set("calibrate", section, tmp_path, paths)
    add_tags(paths, weather_of(600))
    with pytest.raises(CalibrationError, match="^scrc.slices must name values that weather has, known are rain, snow"):
        run_on_set("calibrate", section, tmp_path, paths)
    section["scrc"]["per_slice"] = 1.0
    assert run_on_set("calibrate", section, tmp_path, paths)["guarantee"]["promises"] == []


def test_a_bound_for_slices_without_a_slice_is_refused() -> None:
    with pytest.raises(ConfigError, match="scrc.slices must name tags where scrc.per_slice bounds them, got"):
        parse(Scrc, {"per_slice": 0.1})
