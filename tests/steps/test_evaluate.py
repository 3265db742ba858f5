import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from natix_lib.bundle.runtime import Bundle
from natix_lib.data.dataset import open_role
from natix_lib.files import read_json, sha256_file, write_json
from natix_lib.steps import evaluate
from tests.small_run import Chain


def test_test_is_evaluated_through_the_bundle(chain: Chain) -> None:
    document = read_json(chain.paths["evaluation"])
    view = open_role("evaluate", "TEST", chain.paths["dataset"], chain.paths["splits"])
    predictions = Bundle.load(chain.paths["bundle"]).predict(view.image(i) for i in range(len(view)))
    right = [p.label == view.class_names[label] for p, label in zip(predictions, view.labels, strict=True)]
    assert document["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(right)) and np.mean(right) > 0.8
    assert document["n"] == len(view) and set(document["slices"]) == {"camera"}
    assert np.sum(document["confusion"]) == len(view)


def test_the_pipelines_ui_gets_the_confusion_matrix_and_the_roc(chain: Chain, tmp_path: Path) -> None:
    from kfp.dsl import ClassificationMetrics

    metrics = ClassificationMetrics(uri=str(tmp_path / "classification"))
    evaluate.show(chain.paths["evaluation"], metrics)
    assert [row["displayName"] for row in metrics.metadata["confusionMatrix"]["annotationSpecs"]] == [
        "None",
        "Roadwork",
    ]
    assert len(metrics.metadata["confidenceMetrics"]) > 2
    json.dumps(metrics.metadata, allow_nan=False)
    assert read_json(tmp_path / "classification") == metrics.metadata


def test_what_leaks_is_said_first_in_the_report(chain: Chain, tmp_path: Path) -> None:
    """The sentences of splits.json, then of dataset.json, before the metrics; the bundle was made from these splits."""
    shutil.copytree(chain.paths["bundle"], tmp_path / "bundle")
    shutil.copytree(chain.paths["dataset"], tmp_path / "dataset")
    for source, target, sentence in (
        (chain.paths["splits"], tmp_path / "splits.json", "3 pairs look alike."),
        (tmp_path / "dataset" / "dataset.json", tmp_path / "dataset" / "dataset.json", "Pixels have two labels."),
    ):
        write_json(target, {**read_json(source), "warnings": [sentence]})
    manifest = read_json(tmp_path / "bundle" / "bundle.json")
    manifest["provenance"]["splits_sha256"] = sha256_file(tmp_path / "splits.json")
    write_json(tmp_path / "bundle" / "bundle.json", manifest)
    paths = [str(tmp_path / name) for name in ("dataset", "splits.json", "bundle", "evaluation.json", "report.html")]
    evaluate.run({"evaluate": {"bootstrap": 50}}, *paths)
    assert read_json(paths[3])["warnings"][:2] == ["3 pairs look alike.", "Pixels have two labels."]
    page = Path(paths[4]).read_text()
    places = [page.index(text) for text in ("<h1>", "3 pairs look alike.", "Pixels have two labels.", "<h2>")]
    assert places == sorted(places)
