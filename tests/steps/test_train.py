import html
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from natix_lib.bundle.runtime import Bundle
from natix_lib.contracts import read_manifest
from natix_lib.data.sets import RoleSet, open_set
from natix_lib.decisions.score import softmax
from natix_lib.decisions.slices import Slice
from natix_lib.errors import ConfigError, DataError, TrainingError
from natix_lib.files import sha256_file
from natix_lib.logits import labels_name, logits_name, read_labels, read_logits, read_pair
from natix_lib.steps import train as train_step
from natix_lib.training import filters
from natix_lib.training.artifact import load_classifier
from natix_lib.transform import Transform
from tests.small_run import SETTINGS, TRAIN, Chain
from tests.street_sets import ingest_settings, run_step, write_manifest


def test_every_artifact_says_what_it_was_made_from(chain: Chain) -> None:
    manifest = read_manifest(chain.paths["classifier"], "classifier")
    header = read_logits(chain.paths["val_calib_logits"]).header
    assert manifest["provenance"]["splits_sha256"] == header["splits_sha256"] == sha256_file(chain.paths["splits"])
    assert manifest["model_sha256"] == header["model_sha256"]
    assert manifest["model_sha256"] == sha256_file(Path(chain.paths["classifier"]) / "model.safetensors")
    assert read_labels(chain.paths["val_calib_labels"]).header["ids_sha256"] == header["ids_sha256"]


def test_the_logits_of_val_select_are_those_of_the_exported_weights_on_its_images(chain: Chain) -> None:
    data = read_pair(chain.paths["val_select_logits"], chain.paths["val_select_labels"], "VAL_SELECT")
    images = open_set(chain.paths["val_select_set"], "VAL_SELECT")
    model, manifest = load_classifier(chain.paths["classifier"])
    assert data.header["model_sha256"] == manifest["model_sha256"] and data.labels.tolist() == images.labels.tolist()
    assert data.groups is not None and len(set(data.groups)) == len(set(images.groups))
    transform = Transform.from_document(manifest["transform"])
    with torch.no_grad():
        views = [model(torch.from_numpy(transform(images.image(row)))).mean(dim=0) for row in range(len(images))]
    assert np.allclose(torch.stack(views).numpy(), data.logits, atol=1e-4)


def test_the_tags_of_the_images_stand_beside_their_labels(chain: Chain) -> None:
    for role in ("VAL_SELECT", "VAL_CALIB"):
        tags = read_labels(chain.paths[f"{role.lower()}_labels"], role).tags
        images = open_set(chain.paths[f"{role.lower()}_set"], role)
        assert tags and tags.values == {"camera": ["front", "rear"]} and not tags.left_out
        assert tags.mask(Slice("camera", "rear")).tolist() == [each == "rear" for each in images.tags()["camera"]]


def rare_chain(folder: Path, backbone: Path, class_weights: str) -> Chain:
    """A run on 700 drawn images, one in ten positive: of these 19 in 20 have a square, of the others 1 in 20."""
    generator = np.random.default_rng(0)
    rows = []
    (folder / "source").mkdir()
    for number in range(700):
        image = Image.fromarray(generator.integers(60, 120, (40, 56, 3), dtype=np.uint8))
        positive = number % 10 == 0
        if positive ^ (generator.random() < 0.05):
            x, y = generator.integers(8, 24, 2)
            image.paste((240, 120, 20), (int(x), int(y), int(x) + 22, int(y) + 14))
        image.save(folder / "source" / f"{number}.png")
        rows.append({"image": f"{number}.png", "label": "Roadwork" if positive else "None", "group": f"g{number}"})
    data = ingest_settings(write_manifest(folder / "source", rows))
    data["data"]["positive_classes"] = ["Roadwork"]
    made = Chain(run_step("ingest", data, folder)[0])
    ratios = {"train": 0.4, "val_select": 0.2, "val_calib": 0.2, "test": 0.2}
    training = {**TRAIN["training"], "class_weights": class_weights}
    model = {**TRAIN["model"], "use_multiview": False}
    fetch = {"backbone_id": str(backbone), "backbone_revision": "main"}
    settings: dict[str, dict[str, Any]] = {
        "split": {"split": {"ratios": ratios}}, "fetch": fetch, **SETTINGS,
        "train": {**TRAIN, "model": model, "training": training},
    }  # fmt: skip
    for step, values in settings.items():
        made.paths |= run_step(step, values, folder, made.paths)[0]
    return made


@pytest.mark.slow
def test_balanced_weights_leave_probabilities_that_are_as_rare_as_the_positives(
    tmp_path: Path, tiny_backbone: Path
) -> None:
    paths = rare_chain(tmp_path, tiny_backbone, "balanced").paths
    prior = read_manifest(paths["classifier"], "classifier")["prior"]
    labels = open_set(paths["train_set"], "TRAIN").labels
    assert prior["class_weights"] == pytest.approx(compute_class_weight("balanced", classes=np.arange(2), y=labels))
    assert prior["status"] == "fitted" and prior["fitted_on"]["role"] == "VAL_SELECT"
    bundle = Bundle.load(paths["bundle"])
    images = open_set(paths["test_set"], "TEST")
    logits = {"TEST": bundle.logits(images.image(row) for row in range(len(images)))}
    for role in ("VAL_SELECT", "VAL_CALIB"):
        data = read_pair(paths[logits_name(role)], paths[labels_name(role)], role)
        logits[role] = data.logits  # type: ignore[assignment]
    for role, values in logits.items():  # each has one positive in ten
        temperature = bundle.policy.temperature
        assert softmax(values, temperature)[:, 1].mean() == pytest.approx(0.1, abs=0.07), role
        assert softmax(values - prior["shift"], temperature)[:, 1].mean() > 0.25, role
    sentence = bundle.manifest["provenance"]["prior"]
    assert sentence.startswith(
        "Class weights in training shifted the logits; this was taken back in the head's bias, by"
    )
    assert sentence in html.unescape(Path(paths["report"]).read_text())


@pytest.mark.slow
def test_without_class_weights_nothing_is_taken_back(tmp_path: Path, tiny_backbone: Path) -> None:
    paths = rare_chain(tmp_path, tiny_backbone, "none").paths
    assert read_manifest(paths["classifier"], "classifier")["prior"] is None
    assert "prior" not in Bundle.load(paths["bundle"]).manifest["provenance"]


@pytest.mark.slow
def test_heads_of_a_grid_stand_in_the_report_of_what_was_trained(chain: Chain, tmp_path: Path) -> None:
    paths = dict(chain.paths)
    training = {**TRAIN["training"], "grid": {"lr": [1e-3, 1e-2]}}
    paths |= run_step("train", {**TRAIN, "training": training}, tmp_path, paths)[0]
    for step in list(SETTINGS)[list(SETTINGS).index("train") + 1 :]:
        paths |= run_step(step, SETTINGS[step], tmp_path, paths)[0]
    grid = read_manifest(paths["classifier"], "classifier")["trained"]["grid"]
    assert len(grid) == 2 and Bundle.load(paths["bundle"]).manifest["grid"] == grid
    assert "Heads that were tried: 2" in Path(paths["report"]).read_text()
    assert "Heads that were tried" not in Path(chain.paths["report"]).read_text()


def test_the_curve_has_a_row_for_each_epoch(chain: Chain) -> None:
    header, *rows = Path(chain.paths["training_curve"]).read_text().splitlines()
    assert header == (
        "epoch,step,lr,train/loss,train/acc,val_select/loss,val_select/acc,val_select/macro_f1,val_select/mcc"
    )
    assert len(rows) == read_manifest(chain.paths["classifier"], "classifier")["trained"]["epochs"]


def test_the_monitor_chooses_the_epoch_and_is_told_everywhere(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = {"monitor": "val_select/loss", "patience": 50}
    optimizer = {"lr": 0.3}  # high enough that the loss goes up and down
    settings = {**TRAIN, "training": {**TRAIN["training"], "optimizer": optimizer, "early_stopping": stopping}}
    paths, metrics = run_step("train", settings, tmp_path, chain.paths)
    header, *rows = (line.split(",") for line in Path(paths["training_curve"]).read_text().splitlines())
    epochs = [dict(zip(header, map(float, row), strict=True)) for row in rows]
    best = min(epochs, key=lambda epoch: epoch["val_select/loss"])
    trained = read_manifest(paths["classifier"], "classifier")["trained"]
    assert trained["monitor"] == "val_select/loss" and trained["best_epoch"] == metrics["best_epoch"] == best["epoch"]
    for name in ("loss", "acc", "macro_f1", "mcc"):
        assert trained[f"val_select_{name}"] == metrics[f"val_select_{name}"] == best[f"val_select/{name}"]
    last = epochs[-1]
    assert (
        f"train/loss {last['train/loss']:.4f} val_select/loss {last['val_select/loss']:.4f}" in capsys.readouterr().out
    )


def test_the_heads_of_a_grid_are_told_and_the_kept_one_is_the_classifier_s(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = {"lr": [1e-3, 0.1], "dropout_rate": [0.0, 0.3], "pooling": [["cls"], ["std", "mean"]]}
    settings = {**TRAIN, "training": {**TRAIN["training"], "grid": grid}}
    paths, metrics = run_step("train", settings, tmp_path, chain.paths)
    manifest = read_manifest(paths["classifier"], "classifier")
    heads = manifest["trained"]["grid"]
    tried = {(head["lr"], head["dropout_rate"], head["pooling"]) for head in heads}
    assert tried == set(product((1e-3, 0.1), (0.0, 0.3), ("cls", "std+mean")))
    (kept,) = (head for head in heads if head["kept"])
    assert manifest["head"]["dropout"] == kept["dropout_rate"]
    assert "+".join(manifest["head"]["pooling"]) == kept["pooling"]
    assert manifest["trained"]["best_epoch"] == metrics["best_epoch"] == kept["epoch"]
    assert manifest["trained"]["val_select_loss"] == kept["val_select_loss"]
    printed = capsys.readouterr().out
    assert f"of 8 heads the one kept has lr {kept['lr']:g}, weight decay 0.0001" in printed
    assert f", pooling {kept['pooling']}: val_select/acc" in printed
    curve = Path(paths["training_curve"]).read_text().splitlines()[1 + int(kept["epoch"])].split(",")
    assert float(curve[5]) == kept["val_select_loss"]


def test_heads_of_a_grid_on_patches_name_no_pooling_as_that_has_its_own(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(filters, "SAMPLED", 3000)
    backbone, _ = run_step("fetch", {"backbone_id": "patches", "backbone_revision": "main"}, tmp_path, {})
    training = {**TRAIN["training"], "epochs": 2, "grid": {"lr": [1e-3, 0.1]}}
    settings = {**TRAIN, "model": {**TRAIN["model"], "backbone_id": "patches"}, "training": training}
    paths, _ = run_step("train", settings, tmp_path, {**chain.paths, **backbone})
    manifest = read_manifest(paths["classifier"], "classifier")
    assert "pooling" not in manifest["head"] and len(manifest["trained"]["grid"]) == 2
    assert not any("pooling" in head for head in manifest["trained"]["grid"])
    assert "of 2 heads the one kept has lr" in capsys.readouterr().out


def test_a_train_set_without_a_class_is_refused_and_one_image_of_a_class_warned_of(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(left: int) -> None:
        """TRAIN with `left` images of the last class, the others said to be of the first."""

        def opened(folder: str, role: str) -> RoleSet:
            images = open_set(folder, role)
            if role == "TRAIN":
                last = len(images.class_names) - 1
                images.labels[np.flatnonzero(images.labels == last)[left:]] = 0
            return images

        monkeypatch.setattr(train_step, "open_set", opened)

    names = open_set(chain.paths["train_set"], "TRAIN").class_names
    without(0)
    with pytest.raises(DataError, match=f"^TRAIN holds no image of class {names[-1]}: nothing can be learnt of it"):
        run_step("train", TRAIN, tmp_path / "none", chain.paths)
    without(1)
    run_step("train", TRAIN, tmp_path / "one", chain.paths)
    assert f"warning: TRAIN holds one image only of class {names[-1]}: what" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_training_and_leaves_no_classifier(chain: Chain, tmp_path: Path) -> None:
    settings = {**TRAIN, "training": {**TRAIN["training"], "optimizer": {"lr": 1e30}}}
    with pytest.raises(
        TrainingError, match=r"training loss is nan in epoch 0 \(step \d+\): lower training.optimizer.lr"
    ):
        run_step("train", settings, tmp_path, chain.paths)
    assert not list(tmp_path.iterdir())


def test_an_image_size_that_the_patch_does_not_divide_is_refused(chain: Chain, tmp_path: Path) -> None:
    settings = {**TRAIN, "model": {**TRAIN["model"], "image_size": 30}}
    with pytest.raises(ConfigError, match="image_size must be a multiple of the backbone's patch 8, got 30"):
        run_step("train", settings, tmp_path, chain.paths)


def test_the_page_of_doubtful_labels_says_how_many_and_what_was_done(chain: Chain, tmp_path: Path) -> None:
    page = Path(chain.paths["label_doubts"]).read_text()
    images = read_manifest(chain.paths["train_set"], "train_set")["rows"]
    assert f"of {images} labels of TRAIN are doubtful" in page and "A suspicion, not a verdict" in page
    assert "label_doubts_dropped" not in read_manifest(chain.paths["classifier"], "classifier")["trained"]
    dropped = {**TRAIN, "training": {**TRAIN["training"], "epochs": 1, "label_doubts": "drop"}}
    paths, metrics = run_step("train", dropped, tmp_path, chain.paths)
    assert "images were left out of what weights were fitted on" in Path(paths["label_doubts"]).read_text()
    assert (
        read_manifest(paths["classifier"], "classifier")["trained"]["label_doubts_dropped"] == metrics["label_doubts"]
    )
