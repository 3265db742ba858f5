"""export and what follows from it: a small model is trained once, exported, altered, evaluated and run."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from natix_lib.bundle.runtime import Bundle
from natix_lib.contracts import ARTIFACTS, STEPS, read_manifest, write_manifest
from natix_lib.data.dataset import open_role
from natix_lib.errors import BundleError, ConfigError, ContractError, TrainingError
from natix_lib.files import read_json, write_json
from natix_lib.logits import read_logits
from natix_lib.steps import calibrate, evaluate, export, fetch, split, sweep, train
from tests.cloud_storage import BUCKET, Cloud
from tests.street_sets import ingested_and_split

TRAIN = {
    "dataloader": {"batch_size": 16, "num_workers": 0},
    "model": {"backbone_id": "tiny", "image_size": 32, "use_multiview": True},
    "training": {"epochs": 10, "views": 2, "optimizer": {"lr": 1e-2}},
}


@dataclass
class Chain:
    """Paths of the artifacts of a small run."""

    paths: dict[str, str]

    def inputs(self, step: str, **others: object) -> list[str]:
        return [str(others.get(name, self.paths[name])) for name in STEPS[step].inputs]

    def export(self, out: Path, settings: dict[str, Any] | None = None, **others: object) -> dict[str, float]:
        wanted = {"policy": "calibrate", **(settings or {})}
        return export.run({"export": wanted}, *self.inputs("export", **others), str(out))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    dataset, splits = ingested_and_split(folder, groups=40)
    made = Chain({"dataset": dataset, "splits": splits})
    settings = {
        "fetch": {"backbone_id": str(tiny_backbone), "backbone_revision": "main"},
        "train": TRAIN,
        "sweep": {"sweep": {}},
        "calibrate": {"scrc": {"alpha": 0.3, "delta": 0.2, "on_infeasible": "empirical", "bootstrap": 50}},
        "export": {"export": {"policy": "calibrate"}},
        "evaluate": {"evaluate": {"bootstrap": 100}},
    }
    modules = {
        "fetch": fetch,
        "train": train,
        "sweep": sweep,
        "calibrate": calibrate,
        "export": export,
        "evaluate": evaluate,
    }
    for step, values in settings.items():
        inputs = made.inputs(step)
        made.paths |= {name: str(folder / ARTIFACTS[name].file) for name in STEPS[step].outputs}
        modules[step].run(values, *inputs, *(made.paths[name] for name in STEPS[step].outputs))
    return made


def test_a_bundle_holds_one_policy_its_model_splits_and_golden_images(chain: Chain) -> None:
    bundle = Path(chain.paths["bundle"])
    manifest = read_manifest(bundle, "bundle")
    names = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert {"model.onnx", "model.safetensors", "config.json", "scrcparams.json", "splits.json", "LICENSE.md"} < names
    assert "thresholds.json" not in names and "golden/golden.json" in names
    assert manifest["policy"]["step"] == "calibrate"
    assert max(manifest["parity"]["golden"], manifest["parity"]["val_calib"]) < manifest["parity"]["tolerance"]
    assert set(manifest["files"]) == names - {"bundle.json"}


def test_the_bundle_repeats_the_logits_that_the_policy_was_fitted_on(chain: Chain) -> None:
    view = open_role("export", "VAL_CALIB", chain.paths["dataset"], chain.paths["splits"])
    found = Bundle.load(chain.paths["bundle"]).logits(view.image(i) for i in range(len(view)))
    assert np.allclose(found, read_logits(chain.paths["val_calib_logits"]).values, atol=1e-4)


def test_the_same_inputs_give_the_same_bundle(chain: Chain, tmp_path: Path) -> None:
    chain.export(tmp_path / "again")
    first, second = (read_manifest(folder, "bundle") for folder in (chain.paths["bundle"], tmp_path / "again"))
    assert first == second


def test_the_other_policy_ships_when_it_is_named(chain: Chain, tmp_path: Path) -> None:
    chain.export(tmp_path / "b", {"policy": "sweep"})
    assert (tmp_path / "b" / "thresholds.json").is_file() and not (tmp_path / "b" / "scrcparams.json").exists()


def test_no_policy_named_is_an_error(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"export.policy must name the one policy that ships, sweep or calibrate"):
        export.run({"export": {}}, *chain.inputs("export"), str(tmp_path / "b"))
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
    split.run({"split": {"seed": 5}}, chain.paths["dataset"], str(tmp_path / "splits.json"))
    with pytest.raises(ContractError, match="splits_sha256 differs"):
        chain.export(tmp_path / "b", splits=tmp_path / "splits.json")
    with pytest.raises(ContractError, match="splits_sha256 differs: bundle has"):
        inputs = chain.inputs("evaluate", splits=tmp_path / "splits.json")
        evaluate.run({"evaluate": {}}, *inputs, str(tmp_path / "e"), str(tmp_path / "r"))


def test_a_parity_that_is_not_reached_is_an_error_and_leaves_no_manifest(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"the ONNX model differs from the \w+ logits by .*parity_tolerance 1e-12"):
        chain.export(tmp_path / "b", {"parity_tolerance": 1e-12})
    assert not (tmp_path / "b" / "bundle.json").exists()
    with pytest.raises(ContractError, match=r"has no bundle.json: it was never finished"):
        Bundle.load(tmp_path / "b")


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "scrcparams.json", "golden/golden.json"])
def test_an_altered_bundle_is_not_opened(chain: Chain, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(chain.paths["bundle"], tmp_path / "b"))
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(ContractError, match="does not match the SHA-256 in its manifest"):
        Bundle.load(copy)


def test_a_runtime_that_computes_something_else_is_found_by_the_golden_images(chain: Chain, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(chain.paths["bundle"], tmp_path / "b"))
    golden = read_json(copy / "golden" / "golden.json")
    golden["logits"][2][0] += 0.5
    write_json(copy / "golden" / "golden.json", golden)
    write_manifest(copy, "bundle", read_json(copy / "bundle.json"))
    with pytest.raises(BundleError, match="golden images give logits that differ by"):
        Bundle.load(copy).check_golden()


def test_a_bundle_is_published_once(chain: Chain, tmp_path: Path, cloud: Cloud) -> None:
    place = {"publish_uri": f"gs://{BUCKET}/models/v1"}
    chain.export(tmp_path / "a", place)
    assert cloud.holds("models/v1/bundle.json") and cloud.holds("models/v1/golden/golden.json")
    with pytest.raises(Exception, match=r"already holds bundle.json, name another place"):
        chain.export(tmp_path / "b", place)


def test_the_runtime_needs_neither_torch_nor_transformers(chain: Chain) -> None:
    code = (
        "import sys; from natix_lib.bundle.runtime import Bundle; from PIL import Image;"
        "b = Bundle.load(sys.argv[1]); b.check_golden(); print(b.predict([Image.new('RGB', (50, 40))])[0].label);"
        "assert not {'torch', 'transformers', 'kfp', 'sklearn'} & set(sys.modules), 'too much imported'"
    )
    done = subprocess.run([sys.executable, "-c", code, chain.paths["bundle"]], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() in ("None", "Roadwork"), done.stderr


def test_test_is_evaluated_through_the_bundle(chain: Chain) -> None:
    document = read_json(chain.paths["evaluation"])
    view = open_role("evaluate", "TEST", chain.paths["dataset"], chain.paths["splits"])
    predictions = Bundle.load(chain.paths["bundle"]).predict(view.image(i) for i in range(len(view)))
    right = [p.label == view.class_names[label] for p, label in zip(predictions, view.labels, strict=True)]
    assert document["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(right)) and np.mean(right) > 0.8
    assert document["n"] == len(view) and set(document["slices"]) == {"camera"}
    assert np.sum(document["confusion"]) == len(view)


def test_the_pipelines_ui_gets_the_confusion_matrix_and_the_roc(chain: Chain) -> None:
    from kfp.dsl import ClassificationMetrics

    metrics = ClassificationMetrics()
    evaluate.show(chain.paths["evaluation"], metrics)
    assert [row["displayName"] for row in metrics.metadata["confusionMatrix"]["annotationSpecs"]] == [
        "None",
        "Roadwork",
    ]
    assert len(metrics.metadata["confidenceMetrics"]) > 2
    json.dumps(metrics.metadata, allow_nan=False)


def test_a_loss_that_is_not_finite_stops_training_and_leaves_no_classifier(chain: Chain, tmp_path: Path) -> None:
    settings = {**TRAIN, "training": {**TRAIN["training"], "optimizer": {"lr": 1e30}}}
    outputs = [str(tmp_path / name) for name in STEPS["train"].outputs]
    with pytest.raises(TrainingError, match="not finite"):
        train.run(settings, *chain.inputs("train"), *outputs)
    assert not list(tmp_path.iterdir())


def test_an_image_size_that_the_patch_does_not_divide_is_refused(chain: Chain, tmp_path: Path) -> None:
    settings = {**TRAIN, "model": {**TRAIN["model"], "image_size": 30}}
    outputs = [str(tmp_path / name) for name in STEPS["train"].outputs]
    with pytest.raises(ConfigError, match="image_size must be a multiple of the backbone's patch 8, got 30"):
        train.run(settings, *chain.inputs("train"), *outputs)
