import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from natix_lib.contracts import SCHEMA_VERSION
from natix_lib.decisions import Policy
from natix_lib.decisions.score import softmax
from natix_lib.errors import CalibrationError, ContractError
from natix_lib.files import read_json, write_json

LOGITS = np.array([[2.0, 0.0], [0.0, 0.5], [0.0, 4.0], [1.0, 1.0]])
SWEPT = {
    "artifact": "thresholds",
    "schema_version": SCHEMA_VERSION,
    "method": "global_threshold",
    "score": "log_odds",
    "comparator": ">",
    "threshold_logodds": 0.5,
    "class_names": ["None", "Roadwork"],
    "positive_classes": ["Roadwork"],
    "decision": {"cut": 0.7, "cut_logodds": 0.8},
}
CALIBRATED: dict[str, Any] = {
    "artifact": "scrcparams",
    "schema_version": SCHEMA_VERSION,
    "method": "temperature_scaling",
    "temperature": 1.7,
    "accept": {
        "score": "log_odds",
        "comparator": ">",
        "score_temperature": 1,
        "mode": "threshold",
        "threshold": 1.9,
    },
    "class_names": ["None", "Roadwork"],
    "positive_classes": [],
    "sets": None,
    "decision": None,
}


def test_the_threshold_only_rejects() -> None:
    decisions = Policy.from_document(SWEPT).apply(LOGITS)
    assert decisions.prediction.tolist() == [0, 1, 1, 0]
    assert decisions.accepted.tolist() == [True, False, True, False]  # log-odds 2, .5 (not above), 4, 0


def test_the_score_is_one_half_at_the_cut_and_keeps_the_order() -> None:
    policy = Policy.from_document(SWEPT)
    logits = np.stack([np.zeros(41), np.linspace(-20, 20, 41)], axis=1)
    score = policy.apply(logits).score
    assert (np.diff(score) >= 0).all() and score.min() >= 0 and score.max() <= 1
    assert policy.apply([[0.0, 0.8]]).score[0] == pytest.approx(0.5)
    assert ((score > 0.5) == (logits[:, 1] > 0.8)).all()


def test_without_a_cut_the_score_is_the_probability_of_the_positive_classes() -> None:
    policy = Policy(("a", "b", "c"), ("b", "c"), temperature=2.0)
    logits = np.random.default_rng(0).normal(0, 3, (20, 3))
    assert np.allclose(policy.apply(logits).score, softmax(logits / 2)[:, 1:].sum(axis=1))


def test_without_positive_classes_the_score_is_the_predictions_probability() -> None:
    decisions = Policy(("a", "b"), temperature=3.0).apply(LOGITS)
    assert np.allclose(decisions.score, softmax(LOGITS / 3).max(axis=1))


def test_a_temperature_serves_probabilities_and_never_changes_a_decision() -> None:
    hot, cold = (Policy.from_document({**CALIBRATED, "temperature": t}).apply(LOGITS) for t in (0.2, 9.0))
    assert (hot.accepted == cold.accepted).all() and (hot.prediction == cold.prediction).all()
    assert not np.allclose(hot.probabilities, cold.probabilities)


@pytest.mark.parametrize(("mode", "accepted"), [("accept_all", True), ("abstain_all", False)])
def test_all_or_none_can_be_accepted(mode: str, accepted: bool) -> None:
    document = {**CALIBRATED, "accept": {**CALIBRATED["accept"], "mode": mode, "threshold": None}}
    assert Policy.from_document(document).apply(LOGITS).accepted.tolist() == [accepted] * 4


def test_no_image_gives_no_decision() -> None:
    assert len(Policy.from_document(SWEPT).apply(np.empty((0, 2))).prediction) == 0


def test_numbers_survive_json_exactly() -> None:
    value = 0.1 + 0.2
    policy = Policy.from_document(json.loads(json.dumps({**SWEPT, "threshold_logodds": value})))
    assert policy.threshold == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"artifact": "scrcparams"}, "policy must be a thresholds document, got 'scrcparams'"),
        ({"schema_version": 1}, f"policy has schema_version 1, this natix reads {SCHEMA_VERSION}"),
        ({"method": "magic"}, "method must be global_threshold or temperature_scaling, got 'magic'"),
        ({"comparator": ">="}, "comparator of the accept rule must be >, got '>='"),
        ({"score": "max_probability"}, "score of the accept rule must be log_odds, got 'max_probability'"),
        ({"threshold_logodds": float("nan")}, "threshold_logodds must be a finite number, got nan"),
        ({"class_names": ["None"]}, "class_names .*at least 2 items"),
        ({"class_names": ["None", "Roadwork", "None"]}, "class_names must not name one twice"),
        ({"class_names": "NR"}, "class_names must be a valid list, got 'NR'"),
        ({"threshold_logodds": True}, "threshold_logodds must be a valid number, got True"),
        ({"threshold_logodds": "0.5"}, "threshold_logodds must be a valid number, got '0.5'"),
        ({"threshold_logodds": 10**400}, "threshold_logodds must be a valid number, got 1000"),
        ({"decision": {"cut": 0.7}}, "decision.cut_logodds is missing"),
        ({"method": ["global_threshold"]}, "method must be global_threshold or temperature_scaling, got"),
        ({"schema_version": True}, f"policy has schema_version True, this natix reads {SCHEMA_VERSION}"),
        ({"positive_classes": ["Cone"]}, "positive_classes must be among class_names, got 'Cone'"),
    ],
)
def test_a_document_that_is_no_policy_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Policy.from_document({**SWEPT, **change})


@pytest.mark.parametrize(
    "policy",
    [
        Policy(("a", "b")),
        Policy(("a", "b"), mode="abstain_all", temperature=0.1 + 0.2),
        Policy(("a", "b", "c"), ("c",), "threshold", -0.1 / 3, 1 / 3, 0.0, 2 / 3),
        Policy(("a", "b"), ("b",), "threshold", 1e-300, cut=-5e300, method="global_threshold"),
    ],
)
def test_a_policy_survives_json_bit_for_bit(policy: Policy) -> None:
    text = json.dumps(policy.to_document(), allow_nan=False)
    assert Policy.from_document(json.loads(text)) == policy


def test_a_set_holds_the_prediction_and_every_class_that_is_probable_enough() -> None:
    policy = Policy(("a", "b", "c"), temperature=2.0, sets_threshold=0.7)
    logits = np.array([[8.0, 0, 0], [1.0, 1.0, 0], [0.2, 0.1, 0]])
    decisions = policy.apply(logits)
    assert decisions.sets is not None
    assert decisions.sets.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    narrow = Policy(("a", "b", "c"), sets_threshold=0.1).apply(logits).sets
    assert narrow is not None and narrow.sum(axis=1).tolist() == [1, 1, 1]
    assert Policy(("a", "b", "c")).apply(logits).sets is None


def test_a_sweep_policy_has_neither_temperature_nor_sets() -> None:
    for wrong in ({"temperature": 2.0}, {"sets_threshold": 0.5}, {"mode": "abstain_all"}):
        with pytest.raises(CalibrationError, match="cannot abstain from all, nor have a temperature, a bias or sets"):
            Policy(("a", "b"), method="global_threshold", **wrong)


def test_sets_by_another_score_are_refused() -> None:
    with pytest.raises(ContractError, match="sets must use the score lac, got 'aps'"):
        Policy.from_document({**CALIBRATED, "sets": {"score": "aps", "threshold": 0.5}})


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("accept", {"mode": "accept_all"}, "policy mode accept_all does not go with threshold 1.9"),
        (
            "accept",
            {"mode": "perhaps"},
            "policy mode must be one of threshold, class_thresholds, accept_all, abstain_all, got 'perhaps'",
        ),
        ("accept", {"threshold": None}, "policy mode threshold does not go with threshold None"),
        ("sets", {"score": "lac", "threshold": -0.1}, "sets.threshold must be greater than or equal to 0"),
        ("sets", {"score": "lac"}, "sets.threshold is missing"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(part: str, change: dict, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Policy.from_document({**CALIBRATED, part: {**(CALIBRATED[part] or {}), **change}})


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), True, None, "1.7"])
def test_a_temperature_is_a_finite_number_above_0(temperature: object) -> None:
    with pytest.raises(ContractError, match=r"^policy: temperature .*, got "):
        Policy.from_document({**CALIBRATED, "temperature": temperature})


def test_a_missing_part_is_refused() -> None:
    document = {key: value for key, value in CALIBRATED.items() if key != "temperature"}
    with pytest.raises(ContractError, match="policy: temperature is missing"):
        Policy.from_document(document)


def test_a_score_at_another_temperature_is_refused() -> None:
    with pytest.raises(ContractError, match="score_temperature of the accept rule must be 1, got 2"):
        Policy.from_document({**CALIBRATED, "accept": {**CALIBRATED["accept"], "score_temperature": 2}})


def test_logits_of_other_classes_are_refused() -> None:
    with pytest.raises(CalibrationError, match="3 columns, the policy knows 2 classes"):
        Policy.from_document(SWEPT).apply(np.zeros((1, 3)))


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CalibrationError, match="1 of 2 rows are not: 1"):
        Policy.from_document(SWEPT).apply([[0.0, 1], [np.nan, 0]])


def test_thresholds_of_classes_that_are_in_no_order_are_read_from_a_file(tmp_path: Path) -> None:
    """A file has its keys in the order of the alphabet."""
    policy = Policy(("b", "c", "a"), mode="class_thresholds", class_thresholds=(1.0, 2.0, 3.0), bias=(0.5, 0.0, -0.5))
    write_json(tmp_path / "policy.json", policy.to_document())
    assert Policy.from_document(read_json(tmp_path / "policy.json")) == policy
