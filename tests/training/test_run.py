import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import combinations, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from natix_lib import config
from natix_lib.backbones.features import Extractor
from natix_lib.backbones.loading import load_backbone
from natix_lib.decisions.prior import NONE, PriorShift, fit_prior_shift
from natix_lib.errors import ContractError, TrainingError
from natix_lib.training import features as features_module
from natix_lib.training import fitting as fitting_module
from natix_lib.training import run as run_module
from natix_lib.training.artifact import load_classifier, write_classifier
from natix_lib.training.bank import FeatureBank
from natix_lib.training.doubts import Doubts
from natix_lib.training.features import FeatureCache, extract
from natix_lib.training.fit import Epoch
from natix_lib.training.fitting import Reports
from natix_lib.training.onnx_export import export_onnx
from natix_lib.training.passes import Passes
from natix_lib.training.precision import numerics
from natix_lib.training.recipe import Recipe, Sets
from natix_lib.training.run import Trained, train_classifier
from natix_lib.training.views import Views, batches
from natix_lib.transform import Transform

TRANSFORM = Transform(32, 64, False, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DESCRIPTION = {
    "class_names": ["a", "b"],
    "positive_classes": [],
    "transform": TRANSFORM.document(),
    "licence": {"name": "none", "note": "", "files": []},
    "backbone_source": "tiny",
    "provenance": {"dataset_fingerprint": "f", "splits_sha256": "0" * 64, "backbone_sha256": "0" * 64},
}


Logits = Callable[[torch.Tensor], np.ndarray]


class Squares:
    """Noise with (label 1) or without (label 0) an orange square."""

    def __init__(self, images: int, seed: int) -> None:
        self.ids = [f"{seed}-{index}" for index in range(images)]
        self.groups = self.ids
        self.labels = np.arange(images) % 2
        self.seed = seed

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Image.Image:
        generator = np.random.default_rng((self.seed, index))
        image = Image.fromarray(generator.integers(60, 120, (40, 56, 3), dtype=np.uint8))
        if self.labels[index]:
            x, y = generator.integers(8, 24, 2)
            image.paste((240, 120, 20), (int(x), int(y), int(x) + 22, int(y) + 14))
        return image


def recipe(transform: Transform, **changes: dict) -> Recipe:
    model = {"backbone_id": "tiny", "image_size": 32, **changes.get("model", {})}
    training = {"epochs": 12, "views": 2, "optimizer": {"lr": 1e-2}, **changes.get("training", {})}
    return Recipe(
        config.parse(config.Model, model),
        config.parse(config.Training, training),
        config.Dataloader(batch_size=16, num_workers=0),
        transform,
    )


def train(backbone: Path, transform: Transform = TRANSFORM, **changes: dict) -> Trained:
    sets = Sets(Squares(96, 1), Squares(32, 2), Squares(40, 3), 2, "data")
    return train_classifier(load_backbone(backbone), "weights", sets, recipe(transform, **changes))


def accuracy(trained: Trained) -> float:
    return float((trained.val_calib_logits.argmax(1) == Squares(40, 3).labels).mean())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": {"head_type": "mlp", "dropout_rate": 0.2}},
        {"model": {"use_ema": False}},
        {"training": {"feature_cache": False, "epochs": 6}},
        {"model": {"pooling": ["attentive"]}, "training": {"feature_cache": False, "epochs": 6}},
        {"model": {"freeze_backbone": False}, "training": {"epochs": 6, "optimizer": {"lr": 3e-4}}},
    ],
    ids=["linear", "mlp", "no ema", "no cache", "attentive", "tuned"],
)
def test_a_visible_signal_is_learnt(tiny_backbone: Path, changes: dict) -> None:
    assert accuracy(train(tiny_backbone, **changes)) > 0.85


def test_multiview_logits_are_the_mean_over_the_views(tiny_backbone: Path) -> None:
    wide = Transform(32, 64, True, TRANSFORM.image_mean, TRANSFORM.image_std)
    trained = train(tiny_backbone, wide, model={"use_multiview": True})
    image = Squares(40, 3).image(5)
    with torch.no_grad():
        expected = trained.classifier(torch.from_numpy(wide(image))).mean(0).numpy()
    assert np.allclose(trained.val_calib_logits[5], expected, atol=1e-5)


TUNED = {
    "all": {"layer_decay": 0.7},
    "blocks": {"method": "blocks", "device_batch_size": 5},
    "lora": {"method": "lora", "lora_rank": 4, "gradient_checkpointing": True},
}


POOLINGS = ["cls mean", "max", "std cls", "attentive"]
TUNINGS = ["frozen", *TUNED]
HEAD_TYPES, FLAGS = ["linear", "mlp"], [False, True]
Combination = tuple[str, str, str, bool, bool]  # tuning, pooling, head, average of the weights, three views
PAIRS: list[Combination] = [
    (tuning, pooling, HEAD_TYPES[(i + j) % 2], FLAGS[(i // 2 + j) % 2], FLAGS[(i + j // 2) % 2])
    for (i, tuning), (j, pooling) in product(enumerate(TUNINGS), enumerate(POOLINGS))
]


def loaded_and_equal(backbone: Path, folder: Path, combination: Combination) -> Callable[[Logits, float], None]:
    """Train, write and load; what is returned holds a model to the logits that the training gave."""
    tuning, pooling, head_type, ema, multiview = combination
    frozen, names = tuning == "frozen", pooling.split()
    transform = Transform(32, 64, multiview, TRANSFORM.image_mean, TRANSFORM.image_std)
    model = {"freeze_backbone": frozen, "pooling": names, "head_type": head_type, "use_ema": ema}
    settings = {
        "epochs": 2,
        "label_doubts": "off",
        "optimizer": {"lr": 3e-3, "warmup": 0.2, "clip": 1.0, "decayed": "matrices"},
        "label_smoothing": 0.1,
        "feature_cache": names != ["attentive"],
        **({} if frozen else {"fine_tune": TUNED[tuning], "mixup": 0.4}),
    }
    sets = Sets(Squares(20, 1), Squares(8, 2), Squares(20, 3), 2, "data")
    how = recipe(transform, model={**model, "use_multiview": multiview}, training=settings)
    trained = train_classifier(load_backbone(backbone), "weights", sets, how)
    write_classifier(folder, trained.classifier, DESCRIPTION)
    loaded, manifest = load_classifier(folder)
    assert manifest["head"]["pooling"] == names
    assert loaded.backbone.state_dict().keys() == load_backbone(backbone).state_dict().keys()
    if names == ["attentive"]:
        assert loaded.pooling is not None and loaded.pooling.query is not None and loaded.pooling.query.any()

    def hold(logits: Logits, tolerance: float) -> None:
        for images, given in ((sets.val_select, trained.val_select_logits), (sets.val_calib, trained.val_calib_logits)):
            views = torch.stack([torch.from_numpy(transform(images.image(i))) for i in range(len(images))])
            parts = views.flatten(0, 1).split(16 * views.shape[1])
            mean = np.concatenate([logits(part) for part in parts]).reshape(len(images), views.shape[1], -1).mean(1)
            assert np.allclose(mean, given, rtol=0, atol=tolerance), np.abs(mean - given).max()

    with torch.no_grad():
        hold(lambda pixels: loaded(pixels).numpy(), 1e-6)
    return hold


@pytest.mark.parametrize("combination", PAIRS, ids=lambda row: " ".join(map(str, row)))
def test_logits_come_from_exactly_the_weights_that_are_written(
    tiny_backbone: Path, tmp_path: Path, combination: Combination
) -> None:
    loaded_and_equal(tiny_backbone, tmp_path, combination)


def test_any_two_choices_meet_among_the_combinations_that_are_always_tried() -> None:
    choices: list[list] = [TUNINGS, POOLINGS, HEAD_TYPES, FLAGS, FLAGS]
    for (i, one), (j, other) in combinations(enumerate(choices), 2):
        assert {(row[i], row[j]) for row in PAIRS} == set(product(one, other))


@pytest.mark.slow
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("head_type", HEAD_TYPES)
@pytest.mark.parametrize("ema", FLAGS, ids=["no ema", "ema"])
@pytest.mark.parametrize("multiview", FLAGS, ids=["one view", "three views"])
def test_logits_come_from_exactly_the_weights_that_are_exported(
    tiny_backbone: Path, tmp_path: Path, tuning: str, pooling: str, head_type: str, ema: bool, multiview: bool
) -> None:
    hold = loaded_and_equal(tiny_backbone, tmp_path, (tuning, pooling, head_type, ema, multiview))
    export_onnx(load_classifier(tmp_path)[0], 32, tmp_path / "model.onnx", "pixels", "logits")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    hold(lambda pixels: session.run(["logits"], {"pixels": pixels.numpy()})[0], 1e-4)


def test_the_kept_head_of_several_poolings_is_the_one_that_its_pooling_alone_gives(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    poolings = [["cls"], ["std", "cls", "max"], ["mean"]]
    together = train(tiny_backbone, training={"epochs": 3, "grid": {"pooling": poolings}})
    assert together.grid is not None and [line["pooling"] for line in together.grid] == ["cls", "std+cls+max", "mean"]
    for names, line in zip(poolings, together.grid, strict=True):
        alone = train(tiny_backbone, model={"pooling": names}, training={"epochs": 3})
        best = max(alone.history, key=lambda row: (row.val_select_acc, -row.val_select_loss))
        assert line["epoch"] == best.epoch
        assert line["val_select_loss"] == pytest.approx(best.val_select_loss, rel=1e-4)
        if line["kept"]:
            write_classifier(tmp_path, together.classifier, DESCRIPTION)
            loaded, manifest = load_classifier(tmp_path)
            assert manifest["head"] == {"type": "linear", "pooling": names, "features": 64 * len(names), "dropout": 0.0}
            assert loaded.state_dict().keys() == alone.classifier.state_dict().keys()
            for name, value in alone.classifier.head.state_dict().items():
                torch.testing.assert_close(loaded.head.state_dict()[name], value, rtol=1e-3, atol=1e-5)
            for ours, theirs in (
                (together.val_select_logits, alone.val_select_logits),
                (together.val_calib_logits, alone.val_calib_logits),
            ):
                assert np.allclose(ours, theirs, atol=1e-3)


def test_several_poolings_read_no_image_more_often_than_one(tiny_backbone: Path) -> None:
    class Counted(Squares):
        read = 0

        def image(self, index: int) -> Image.Image:
            Counted.read += 1
            return super().image(index)

    counts = []
    for grid in ({"pooling": [["cls"]]}, {"pooling": [["cls"], ["max"], ["mean", "std"]], "lr": [1e-2, 1e-3]}):
        Counted.read = 0
        sets = Sets(Counted(24, 1), Counted(12, 2), Counted(12, 3), 2, "data")
        how = recipe(TRANSFORM, training={"epochs": 2, "grid": grid})
        train_classifier(load_backbone(tiny_backbone), "weights", sets, how)
        counts.append(Counted.read)
    assert counts == [24 * 2 + 12 + 12] * 2


def test_a_grid_of_one_value_takes_it_in_place_of_the_plain_key(tiny_backbone: Path) -> None:
    plain = train(tiny_backbone, training={"epochs": 2, "optimizer": {"lr": 3e-3}})
    of_grid = train(tiny_backbone, training={"epochs": 2, "grid": {"lr": [3e-3]}})
    assert np.allclose(of_grid.val_calib_logits, plain.val_calib_logits, atol=1e-4)
    pooled = train(tiny_backbone, training={"epochs": 2, "grid": {"pooling": [["max"]]}}).classifier.pooling
    assert pooled is not None and pooled.names == ("max",)


def test_features_of_one_pooling_are_not_taken_for_those_of_another(tiny_backbone: Path, tmp_path: Path) -> None:
    kept = {"epochs": 1, "feature_cache_dir": str(tmp_path)}
    train(tiny_backbone, model={"pooling": ["cls", "mean"]}, training=kept)
    after = train(tiny_backbone, model={"pooling": ["std", "max"]}, training=kept)
    fresh = train(tiny_backbone, model={"pooling": ["std", "max"]}, training={"epochs": 1})
    assert np.array_equal(after.val_calib_logits, fresh.val_calib_logits)


def test_lora_changes_q_and_v_of_the_exported_classifier_and_nothing_else(tiny_backbone: Path, tmp_path: Path) -> None:
    settings = {"epochs": 1, "optimizer": {"lr": 1e-2}, "fine_tune": TUNED["lora"]}
    trained = train(tiny_backbone, model={"freeze_backbone": False}, training=settings)
    write_classifier(tmp_path, trained.classifier, DESCRIPTION)
    before, after = load_backbone(tiny_backbone).state_dict(), load_classifier(tmp_path)[0].backbone.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith(("q_proj.weight", "v_proj.weight"))}


def test_a_signal_is_learnt_by_lora_with_everything_switched_on(tiny_backbone: Path) -> None:
    optimizer = {"lr": 1e-2, "warmup": 0.1, "clip": 1.0, "decayed": "matrices"}
    settings = {
        "epochs": 6,
        "optimizer": optimizer,
        "class_weights": "sampled",
        "label_smoothing": 0.05,
        "mixup": 0.2,
        "fine_tune": {"method": "lora", "layer_decay": 0.75, "device_batch_size": 7},
    }
    assert accuracy(train(tiny_backbone, model={"freeze_backbone": False}, training=settings)) > 0.85


class Rare(Squares):
    """One label in eight is 1, and these alone have the square but for one image in eight."""

    def __init__(self, images: int, seed: int) -> None:
        super().__init__(images, seed)
        self.labels = (np.arange(images) % 8 == 0).astype(np.int64)

    def image(self, index: int) -> Image.Image:
        squared = Squares(len(self), self.seed)
        squared.labels = self.labels ^ (np.arange(len(self)) % 8 == self.seed % 7 + 1)
        return squared.image(index)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": {"head_type": "mlp"}},
        {"training": {"feature_cache": False, "epochs": 2}},
        {"training": {"class_weights": "sampled"}},
        {"training": {"feature_cache": False, "epochs": 2, "class_weights": "sampled"}},
    ],
    ids=["linear", "mlp", "no cache", "sampled", "sampled, no cache"],
)
def test_class_weights_are_taken_back_in_the_bias_that_is_exported(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict
) -> None:
    sets = Sets(Rare(96, 1), Rare(64, 2), Rare(40, 3), 2, "data")
    how = recipe(TRANSFORM, **{**changes, "training": {"epochs": 4, **changes.get("training", {})}})

    def trained() -> Trained:
        return train_classifier(load_backbone(tiny_backbone), "weights", sets, how)

    corrected = trained()
    prior = corrected.prior
    assert prior is not None and prior.weights == pytest.approx([96 / (2 * 84), 96 / (2 * 12)])
    write_classifier(tmp_path, corrected.classifier, DESCRIPTION)
    loaded, _ = load_classifier(tmp_path)
    for images, logits in (
        (sets.val_select, corrected.val_select_logits),
        (sets.val_calib, corrected.val_calib_logits),
    ):
        pixels = torch.stack([torch.from_numpy(TRANSFORM(images.image(i)))[0] for i in range(len(images))])
        with torch.no_grad():
            assert np.allclose(loaded(pixels).numpy(), logits, atol=1e-4)
    nothing = PriorShift(prior.weights, np.zeros(2), 1.0, NONE, "", 0)
    monkeypatch.setattr("natix_lib.training.run.fit_prior_shift", lambda *_: nothing)
    as_trained = trained()
    for name, value in as_trained.classifier.state_dict().items():
        same = torch.equal(value, corrected.classifier.state_dict()[name])
        assert same != (name == "head.linear.bias"), name
    for ours, theirs in (
        (corrected.val_select_logits, as_trained.val_select_logits),
        (corrected.val_calib_logits, as_trained.val_calib_logits),
    ):
        assert np.allclose(ours - theirs, prior.shift, atol=1e-5)
    found = fit_prior_shift(as_trained.val_select_logits, sets.val_select.labels, prior.weights)
    assert prior.strength == pytest.approx(found.strength, rel=1e-4)


@pytest.mark.parametrize("rule", ["none", "balanced"])
def test_without_weights_or_with_equal_ones_nothing_is_taken_back(tiny_backbone: Path, rule: str) -> None:
    trained = train(tiny_backbone, training={"epochs": 1, "class_weights": rule})  # as many images of both classes
    assert trained.prior is None


def test_a_frozen_backbone_does_not_change_and_a_tuned_one_does(tiny_backbone: Path) -> None:
    before = load_backbone(tiny_backbone).state_dict()
    frozen = train(tiny_backbone).classifier.backbone.state_dict()
    assert all(torch.equal(before[name], frozen[name]) for name in before)
    tuned = train(tiny_backbone, model={"freeze_backbone": False}, training={"epochs": 1}).classifier.backbone
    assert any(not torch.equal(before[name], value) for name, value in tuned.state_dict().items())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny_backbone: Path) -> None:
    first, second, other = (
        train(tiny_backbone, training={"seed": seed, "epochs": 3, "views": 2}).val_calib_logits for seed in (4, 4, 5)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_looking_for_doubtful_labels_changes_no_weight(tiny_backbone: Path) -> None:
    shown, off = (train(tiny_backbone, training={"epochs": 2, "label_doubts": key}) for key in ("show", "off"))
    for name, value in off.classifier.state_dict().items():
        assert torch.equal(shown.classifier.state_dict()[name], value), name
    assert np.array_equal(shown.val_calib_logits, off.val_calib_logits)
    assert shown.doubts.judged == 96 and off.doubts.reason == "training.label_doubts is off"


class Mistaken(Squares):
    """Squares that are drawn as they are whatever their labels become."""

    def image(self, index: int) -> Image.Image:
        return Squares(len(self), self.seed).image(index)


@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, False], ids=["on features", "on pixels"])
def test_the_labels_of_dropped_images_say_nothing_to_the_weights(
    tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    rows = list(range(0, 96, 3))
    found = Doubts(96, 96, rows, [0] * len(rows), [(0.1, 0.9)] * len(rows))
    monkeypatch.setattr("natix_lib.training.doubtless.label_doubts", lambda *_: found)

    def logits(wrong: int, key: str) -> np.ndarray:
        images = Mistaken(96, 1)
        images.labels[rows[:wrong]] = 1 - images.labels[rows[:wrong]]
        sets = Sets(images, Squares(32, 2), Squares(40, 3), 2, "data")
        how = recipe(TRANSFORM, training={"epochs": 2, "feature_cache": cached, "label_doubts": key})
        return train_classifier(load_backbone(tiny_backbone), "weights", sets, how).val_calib_logits

    assert np.array_equal(logits(0, "drop"), logits(9, "drop"))
    assert not np.array_equal(logits(0, "show"), logits(9, "show"))


def test_a_class_of_doubtful_labels_alone_is_not_dropped_in_silence(
    tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = Squares(96, 1)
    rare.labels = np.where(np.isin(np.arange(96), (0, 2)), 2, rare.labels)
    found = Doubts(96, 96, [0, 2], [1, 1], [(0.1, 0.9), (0.1, 0.9)])
    monkeypatch.setattr("natix_lib.training.doubtless.label_doubts", lambda *_: found)
    sets = Sets(rare, Squares(32, 2), Squares(40, 3), 3, "data")
    how = recipe(TRANSFORM, training={"label_doubts": "drop"})
    with pytest.raises(TrainingError, match="label_doubts: drop would leave class number 2 without images in TRAIN"):
        train_classifier(load_backbone(tiny_backbone), "weights", sets, how)


def test_the_feature_cache_is_used_and_changes_nothing(tiny_backbone: Path, tmp_path: Path) -> None:
    plain = train(tiny_backbone).val_calib_logits
    cached = {"feature_cache_dir": str(tmp_path)}
    first = train(tiny_backbone, training=cached).val_calib_logits
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3  # clean and augmented TRAIN, VAL_SELECT
    stamps = [path.stat().st_mtime_ns for path in files]
    second = train(tiny_backbone, training=cached).val_calib_logits
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())] == stamps
    assert np.array_equal(plain, first) and np.array_equal(first, second)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1] + bytes([content[-1] ^ 1]), lambda content: content[:40], lambda _: b""]
)
def test_features_that_were_changed_in_the_cache_are_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    features, asked = torch.rand(3, 2, 4), []

    def kept() -> torch.Tensor:
        def extracted(rows: Sequence[int]) -> Iterator[torch.Tensor]:
            asked.append(len(rows))
            return iter(features[rows].split(2))

        return torch.cat([*FeatureCache(str(tmp_path)).get_or_extract(3, lambda rows: {"weights": "x"}, extracted)])

    assert torch.equal(kept(), features)
    (path,) = tmp_path.iterdir()
    assert torch.equal(kept(), features)
    path.write_bytes(damage(path.read_bytes()))
    for expected in (f"cached {path} was changed: repeated\n", ""):
        assert torch.equal(kept(), features)
        assert capsys.readouterr().out == expected
    assert asked == [3, 3]


def test_a_pass_that_was_killed_goes_on_at_the_next_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "SHARD", 5)
    features, asked = torch.rand(20, 2, 4), []

    def extracted(rows: Sequence[int], last: int) -> Iterator[torch.Tensor]:
        for batch in torch.tensor(rows).split(3):
            if int(batch[0]) >= last:
                raise KeyboardInterrupt
            asked.extend(batch.tolist())
            yield features[batch]

    def kept(last: int) -> torch.Tensor:
        cache = FeatureCache(str(tmp_path), batch_size=3)
        done: list[int] = []
        key, extract = (lambda part: {"rows": [part.start, part.stop]}), (lambda rows: extracted(rows, last))
        parts = list(cache.get_or_extract(20, key, extract, done.append))
        assert done[-1] == 20 and done == sorted(done)
        return torch.cat(parts)

    with pytest.raises(KeyboardInterrupt):
        kept(15)  # shards of two batches: 0 to 5, 6 to 11, and half of the third
    assert len(list(tmp_path.iterdir())) == 2
    assert torch.equal(kept(20), features) and asked == [*range(15), *range(12, 20)]
    sorted(tmp_path.iterdir())[0].unlink()
    assert torch.equal(kept(20), features) and torch.equal(kept(0), features)


def test_features_in_a_file_that_no_memory_holds_train_the_very_same_head(
    tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"training": {"grid": {"lr": [1e-3, 1e-2]}}}
    expected = [train(tiny_backbone).val_calib_logits, train(tiny_backbone, **changes).val_calib_logits]
    banks: list[bool] = []
    batches = FeatureBank.batches

    def noted(bank: FeatureBank, *rest: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        banks.append(bank.mapped)
        return batches(bank, *rest)

    monkeypatch.setattr(FeatureBank, "batches", noted)
    monkeypatch.setattr(fitting_module, "room_on", lambda *_: 0)
    mapped = [train(tiny_backbone).val_calib_logits, train(tiny_backbone, **changes).val_calib_logits]
    assert all(banks) and len(banks) > 2
    for ours, theirs in zip(mapped, expected, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("cached", [True, False], ids=["on features", "on pixels"])
def test_kept_logits_are_float32_where_the_rest_of_a_run_is_not(
    tiny_backbone: Path, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def as_on_a_gpu(how: Literal["exact", "fast"], device: torch.device) -> AbstractContextManager[None]:
        asked.append(how)
        return numerics(how, torch.device("cuda"))

    monkeypatch.setattr(run_module, "numerics", as_on_a_gpu)
    precisions: list[str] = []
    plain = Passes.logits

    def noted(*arguments: Any) -> torch.Tensor:
        precisions.append(torch.get_float32_matmul_precision())
        return plain(*arguments)

    monkeypatch.setattr(Passes, "logits", noted)
    train(tiny_backbone, training={"determinism": "fast", "feature_cache": cached, "epochs": 2})
    assert asked == ["fast"] and torch.get_float32_matmul_precision() == "highest"
    assert precisions == (["highest"] if cached else ["high", "high", "highest", "highest"])  # an epoch each, then kept


def test_features_that_are_kept_change_no_dropout(tiny_backbone: Path, tmp_path: Path) -> None:
    def logits(**training: object) -> np.ndarray:
        return train(tiny_backbone, model={"dropout_rate": 0.3}, training={"epochs": 2, **training}).val_calib_logits

    plain = logits()
    for _ in range(2):
        assert np.array_equal(logits(feature_cache_dir=str(tmp_path)), plain)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_tuned_backbone_goes_on_within_an_epoch_and_reads_no_image_again(
    tiny_backbone: Path, tmp_path: Path, mixup: float
) -> None:
    class Told(Squares):
        def image(self, index: int) -> Image.Image:
            read.append(index)
            if len(read) == moment:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().image(index)

    def trained(root: str = "") -> Trained:
        read.clear()
        changes: dict[str, dict] = {
            "model": {"freeze_backbone": False, "dropout_rate": 0.3},
            "training": {"epochs": 2, "optimizer": {"lr": 3e-4}, "checkpoint_root": root, "mixup": mixup},
        }
        sets = Sets(Told(64, 1), Squares(16, 2), Squares(16, 3), 2, "data")
        return train_classifier(load_backbone(tiny_backbone), "weights", sets, recipe(TRANSFORM, **changes))

    read: list[int] = []
    moment = -1
    whole = trained()
    assert len(read) == 64 * 3  # of the clean features, and two epochs
    moment = 64 * 2 + 20  # in the second batch of the second epoch
    with pytest.raises(SystemExit):
        trained(str(tmp_path))
    moment = -1
    again = trained(str(tmp_path))
    assert len(read) == 32  # two batches of 16 are done, and the clean features are kept
    assert again.history == whole.history and np.array_equal(again.val_calib_logits, whole.val_calib_logits)
    states = again.classifier.state_dict(), whole.classifier.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_augmented_views_depend_on_the_seed_and_the_image_alone() -> None:
    images = Squares(8, 1)
    views = Views(images, TRANSFORM, 3, (1, 2))
    small = torch.cat(list(batches(views, config.Dataloader(batch_size=3, num_workers=0))))
    large = torch.cat(list(batches(views, config.Dataloader(batch_size=8, num_workers=0))))
    assert torch.equal(small, large)
    reverse = torch.cat(list(batches(views, config.Dataloader(batch_size=8, num_workers=0), range(7, -1, -1))))
    assert torch.equal(reverse.flip(0), large)
    assert not torch.equal(large[:, 0], large[:, 1])
    assert not torch.equal(Views(images, TRANSFORM, 4, (1,))[0][0], views[0][0][:1])


def test_a_classifier_with_a_missing_key_is_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from natix_lib.contracts import write_manifest
    from natix_lib.files import read_json, sha256_file

    trained = train(tiny_backbone, training={"epochs": 1})
    write_classifier(tmp_path, trained.classifier, DESCRIPTION)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["head.weight"] = tensors.pop("head.linear.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ContractError, match="its manifest says"):
        load_classifier(tmp_path)
    manifest = read_json(tmp_path / "classifier.json")
    write_manifest(tmp_path, "classifier", manifest)
    with pytest.raises(ContractError, match=r"model_sha256 differs: classifier.json has .*, model.safetensors has"):
        load_classifier(tmp_path)
    manifest["model_sha256"] = sha256_file(tmp_path / "model.safetensors")
    write_manifest(tmp_path, "classifier", manifest)
    with pytest.raises(ContractError, match="does not fit its description"):
        load_classifier(tmp_path)


def test_a_share_of_no_images_has_no_features(tiny_backbone: Path) -> None:
    backbone = load_backbone(tiny_backbone)
    views = Views(Squares(4, 1), TRANSFORM, 0, (1, 2))
    features = extract(Extractor(backbone), views, config.Dataloader(batch_size=2, num_workers=0), rows=range(0))
    assert features.shape == (0, 2, 128)


@pytest.mark.parametrize("tuned", [False, True])
def test_features_that_are_not_finite_stop_a_run_before_its_first_epoch_and_are_not_kept(
    tiny_backbone: Path, tmp_path: Path, tuned: bool
) -> None:
    sets = Sets(Squares(96, 1), Squares(32, 2), Squares(40, 3), 2, "data")
    backbone = load_backbone(tiny_backbone)
    layer = [norm for norm in backbone.modules() if isinstance(norm, torch.nn.LayerNorm)][-1]

    def broken_third(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        """Break the third image of the batch."""
        broken = output.clone()
        broken[2] = float("nan")
        return broken

    layer.register_forward_hook(broken_third)
    training = {"feature_cache_dir": str(tmp_path)}
    how = recipe(TRANSFORM, training=training, model={"freeze_backbone": not tuned})
    match = r"^features of TRAIN are NaN or infinite for 1 of 16 images \(1-2\)"
    epochs: list[Epoch] = []
    with pytest.raises(TrainingError, match=match):
        train_classifier(backbone, "weights", sets, how, Reports(on_epoch=epochs.append))
    assert not epochs and not list(tmp_path.iterdir())
