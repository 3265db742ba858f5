import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from natix_lib.bundle.runtime import Bundle
from natix_lib.contracts import write_manifest
from natix_lib.data.sets import open_set
from natix_lib.decisions import Policy
from natix_lib.evaluation import Scored
from natix_lib.evaluation import evaluate as measure
from natix_lib.files import read_json, sha256_file, write_json
from natix_lib.steps import evaluate
from tests.small_run import Chain
from tests.street_sets import run_step


def test_test_is_evaluated_through_the_bundle(chain: Chain) -> None:
    document = read_json(chain.paths["evaluation"])
    test = open_set(chain.paths["test_set"], "TEST")
    predictions = Bundle.load(chain.paths["bundle"]).predict(test.image(i) for i in range(len(test)))
    right = [p.label == test.class_names[label] for p, label in zip(predictions, test.labels, strict=True)]
    assert document["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(right)) and np.mean(right) > 0.8
    assert document["n"] == len(test) and set(document["slices"]) == {"camera"}
    assert np.sum(document["confusion"]) == len(test)


def test_the_pipelines_ui_gets_the_confusion_matrix_and_the_roc(chain: Chain, tmp_path: Path) -> None:
    from kfp.dsl import ClassificationMetrics

    metrics = ClassificationMetrics(uri=str(tmp_path / "classification"))
    settings = {"evaluate": {"bootstrap": 20}}
    paths = chain.inputs("evaluate") | {name: str(tmp_path / name) for name in ("evaluation", "report")}
    evaluate.run(settings, **paths, classification=metrics)
    assert [row["displayName"] for row in metrics.metadata["confusionMatrix"]["annotationSpecs"]] == [
        "None",
        "Roadwork",
    ]
    assert len(metrics.metadata["confidenceMetrics"]) > 2
    json.dumps(metrics.metadata, allow_nan=False)
    assert read_json(tmp_path / "classification") == metrics.metadata


@pytest.mark.slow
def test_the_report_says_what_each_slice_had_of_which_something_was_asked_for(chain: Chain, tmp_path: Path) -> None:
    scrc = {"alpha": 0.3, "per_slice": 0.4, "slices": ["camera"], "bootstrap": 50}
    made, _ = run_step("calibrate", {"scrc": scrc}, tmp_path, chain.paths)
    chain.export(tmp_path / "bundle", scrcparams=made["scrcparams"])
    paths = {name: str(tmp_path / name) for name in ("evaluation", "report")}
    inputs = chain.inputs("evaluate", bundle=tmp_path / "bundle")
    evaluate.run({"evaluate": {"bootstrap": 20}}, **inputs, **paths)
    document, test = read_json(paths["evaluation"]), open_set(chain.paths["test_set"], "TEST")
    decisions = list(Bundle.load(tmp_path / "bundle").predict(test.image(i) for i in range(len(test))))
    for each, value in zip(document["promised_slices"], ("front", "rear"), strict=True):
        rows = [i for i, one in enumerate(test.tags()["camera"]) if one == value]
        assert (each["tag"], each["value"], each["alpha"], each["n"]) == ("camera", value, 0.4, len(rows))
        assert each["coverage"]["value"] == pytest.approx(np.mean([decisions[i].accepted for i in rows]))
        page = (tmp_path / "report").read_text()
        assert f"camera={value}" in page and "known to be so or not" in page
    assert read_json(chain.paths["evaluation"])["promised_slices"] == []


def warnings_of(labels: np.ndarray, logits: np.ndarray, policy: Policy) -> list[str]:
    scored = Scored(labels, np.arange(len(labels)).astype(str), policy.apply(logits), policy.positive_mask())
    figures = measure(scored, policy.class_names, {}, 200, 0.95, 0, 20)
    return evaluate._warnings(scored, figures)


def test_a_policy_that_accepts_nothing_says_so_before_all_else() -> None:
    labels, logits, names = drawn(60)
    policy = Policy(names, mode="abstain_all")
    scored = Scored(labels, labels.astype(str), policy.apply(logits), policy.positive_mask())
    document = {**policy.to_document(), "guarantee": {"certified": False, "alpha": 0.05, "delta": 0.1, "reason": "few"}}
    assert evaluate._policy_warnings(scored, policy.mode, document) == [
        "The policy accepts nothing: every prediction is left to a person.",
        "The policy is uncertified: the accept rule carries no guarantee: few.",
    ]


def drawn(n: int, classes: int = 13) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, n)
    logits = generator.normal(0, 1, (n, classes))
    logits[np.arange(n), labels] += 4
    return labels, logits, tuple(f"c{i}" for i in range(classes))


def test_a_rounded_score_that_is_worse_than_the_label_is_the_first_warning() -> None:
    labels, logits, names = drawn(400)
    warnings = warnings_of(labels, logits, Policy(names, names[1:], cut=6.0))
    assert warnings[0].startswith("Do not round the score: it says positive or not rightly of ")
    assert "the label of 9" in warnings[0]


def test_a_rounded_score_that_is_better_or_no_worse_than_chance_explains_is_no_warning() -> None:
    labels, logits, names = drawn(400)
    logits[:, 0] += 3  # the label says c0 too often
    mended = Policy(names, names[1:], cut=-3.0)
    assert not any("round" in text for text in warnings_of(labels, logits, mended))
    few = warnings_of(labels[:12], logits[:12], Policy(names, names[1:], cut=1.0))
    assert not any("round" in text for text in few)


def test_few_groups_are_said() -> None:
    labels, logits, names = drawn(9)
    assert "TEST has 9 groups: too few for intervals" in " ".join(warnings_of(labels, logits, Policy(names)))


def bundle_of_splits(bundle: str, target: Path, splits: Path) -> None:
    """A copy of a bundle as if it had been made from other splits."""
    shutil.copytree(bundle, target)
    shutil.copyfile(splits, target / "splits.json")
    manifest = read_json(target / "bundle.json")
    policy = read_json(target / manifest["policy"]["file"])
    for document in (manifest, policy):
        document["provenance"]["splits_sha256"] = sha256_file(splits)
    write_json(target / manifest["policy"]["file"], policy)
    manifest["policy"]["sha256"] = sha256_file(target / manifest["policy"]["file"])
    write_manifest(target, "bundle", manifest)


def test_what_is_not_promised_and_what_leaks_is_said_first_in_the_report(chain: Chain, tmp_path: Path) -> None:
    """What split says of leaks, what the policy does not promise, what ingest says, and then the metrics.

    Bundle and set were made from these splits.
    """
    splits = {**read_json(chain.paths["splits"]), "warnings": ["3 pairs look alike."]}
    write_json(tmp_path / "splits.json", splits)
    bundle_of_splits(chain.paths["bundle"], tmp_path / "bundle", tmp_path / "splits.json")
    shutil.copytree(chain.paths["test_set"], tmp_path / "test_set")
    test = read_json(tmp_path / "test_set" / "set.json")
    test["ingested"]["warnings"] = ["Pixels have two labels."]
    write_manifest(tmp_path / "test_set", "test_set", {**test, "splits_sha256": sha256_file(tmp_path / "splits.json")})
    inputs = {"test_set": tmp_path / "test_set", "bundle": tmp_path / "bundle"}
    paths, _ = run_step("evaluate", {"evaluate": {"bootstrap": 50}}, tmp_path, inputs)
    evaluation = read_json(paths["evaluation"])
    leak, promise, pixels = evaluation["warnings"][:3]
    assert promise.startswith(
        "The policy is uncertified: the accept rule carries no guarantee: needs at least 9 groups"
    )
    assert (leak, pixels) == ("3 pairs look alike.", "Pixels have two labels.")
    policy = evaluation["policy"]
    assert promise == f"The policy is {policy['promise']}." and policy["certified"] is False
    page = Path(paths["report"]).read_text()
    places = [
        page.index(text) for text in ("<h1>", "3 pairs look alike.", "uncertified", "Pixels have two labels.", "<h2>")
    ]
    assert places == sorted(places)
