import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from natix_lib.backbones.loading import load_backbone
from natix_lib.contracts import ARTIFACTS, BACKBONE_CONFIG, STEPS, write_manifest
from natix_lib.data.sets import open_set
from natix_lib.distributed.exchange import Answer
from natix_lib.distributed.processes import compute_in_processes
from natix_lib.files import read_json
from natix_lib.steps import fetch
from natix_lib.steps.train_worker import CLASSIFIER, compute_from_paths
from natix_lib.training import keeper
from natix_lib.training.events import EventFile
from natix_lib.training.fit import Epoch
from tests.cloud_storage import BUCKET, Cloud
from tests.small_run import TRAIN, Chain
from tests.training.test_events import curve


def run(chain: Chain, folder: Path, processes: int, backbone: Path | None = None, **changes: dict[str, Any]) -> Answer:
    settings = {
        **TRAIN,
        "dataloader": {"batch_size": changes.get("batch", {}).get("size", 16), "num_workers": 0},
        "model": {**TRAIN["model"], **changes.get("model", {})},
        "training": {**TRAIN["training"], "epochs": 2, **changes.get("training", {})},
    }
    inputs = {name: chain.paths[name] for name in STEPS["train"].inputs}
    if backbone:
        inputs["backbone"] = str(backbone)
    if processes == 1:
        return compute_from_paths(settings, inputs)
    folder.mkdir()
    return compute_in_processes(compute_from_paths.__module__, settings, inputs, folder, processes)


class Killed(Exception):
    pass


@pytest.mark.parametrize("tuned", [False, True], ids=["on features", "on pixels"])
def test_a_run_that_is_killed_goes_on_from_its_bucket_and_its_curve_with_it(
    chain: Chain,
    tmp_path: Path,
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tuned: bool,
) -> None:
    monkeypatch.setattr(keeper, "LEAST_SECONDS", 0.0)
    changes: dict[str, Any] = {
        "model": {"freeze_backbone": not tuned, "dropout_rate": 0.3},
        "training": {"epochs": 3, "optimizer": {"lr": 1e-3}, "fine_tune": {"method": "blocks", "blocks": 1}},
    }
    whole, figures = run(chain, tmp_path, 1, **changes)
    roots = {name: f"gs://{BUCKET}/{name}" for name in ("checkpoint_root", "tensorboard_root")}
    changes["training"] |= {**roots, "checkpoint_minutes": 1e-9}
    added: list[int] = []
    add = EventFile.add

    def stop(self: EventFile, row: Epoch) -> None:
        add(self, row)
        added.append(row.epoch)
        if added == [0, 1]:
            raise Killed  # epoch 1 is on its way, and its checkpoint is not written

    monkeypatch.setattr(EventFile, "add", stop)
    with pytest.raises(Killed):
        run(chain, tmp_path, 1, **changes)
    files = {blob.name for blob in cloud.bucket.list_blobs()}
    assert any(re.fullmatch(r"checkpoint_root/[0-9a-f]{16}/step-\d{8}\.safetensors", name) for name in files)
    again, others = run(chain, tmp_path, 1, **changes)
    assert "going on from" in capsys.readouterr().out and added[2:] == list(range(added[2], 3)) and added[2] <= 1
    assert others == figures and all(torch.equal(again[name], value) for name, value in whole.items())
    (events,) = cloud.bucket.list_blobs(prefix="tensorboard_root/")
    shown = curve(events.download_as_bytes())
    assert [row["step"] for row in shown] == [row["step"] for row in figures["history"]]
    assert [row["train/loss"] for row in shown] == pytest.approx([row["train_loss"] for row in figures["history"]])


def test_the_curve_of_a_grid_is_that_of_the_head_that_is_kept(chain: Chain, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"training": {"grid": {"lr": [1e-1, 1e-4]}, "tensorboard_root": str(tmp_path)}}
    _, figures = run(chain, tmp_path, 1, **changes)
    (file,) = tmp_path.rglob("*tfevents*")
    shown = curve(file.read_bytes())
    assert [row["val_select/loss"] for row in shown] == pytest.approx(
        [row["val_select_loss"] for row in figures["history"]]
    )


def last_batch_of_one(chain: Chain) -> int:
    """A batch size that leaves one image: of two processes, one then has none."""
    images = len(open_set(chain.paths["train_set"], "TRAIN"))
    return next(size for size in range(5, images) if images % size == 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"epochs": 2}},
        {"training": {"epochs": 2, "grid": {"pooling": [["cls"], ["std", "max"]], "lr": [1e-3, 1e-2]}}},
        {"training": {"feature_cache": False, "epochs": 1}},
        {"training": {"feature_cache": False, "epochs": 1}, "model": {"pooling": ["attentive"]}},
    ],
    ids=["on features", "on features of several poolings", "on pixels", "on pixels, attentive"],
)
def test_two_processes_train_what_one_trains(chain: Chain, tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = {**changes, "batch": {"size": last_batch_of_one(chain)}}
    alone, figures = run(chain, tmp_path / "one", 1, **changes)
    together, others = run(chain, tmp_path / "two", 2, **changes)
    assert alone.keys() == together.keys()
    for name in alone:
        torch.testing.assert_close(together[name], alone[name], rtol=1e-3, atol=1e-4, msg=name)
    for mine, theirs in zip(figures["history"], others["history"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4)


@pytest.mark.slow
def test_two_processes_learn_the_filters_and_keep_the_head_of_one(chain: Chain, tmp_path: Path) -> None:
    backbone = tmp_path / "patches"
    fetch.run({"backbone_id": "patches", "backbone_revision": "main"}, backbone=str(backbone))
    changes: dict[str, Any] = {
        "model": {"backbone_id": "patches"},
        "training": {
            "epochs": 4,
            "grid": {"lr": [1e-3, 1e-2], "weight_decay": [1e-4, 0.1], "dropout_rate": [0.0, 0.2]},
        },
        "batch": {"size": last_batch_of_one(chain)},
    }
    alone, figures = run(chain, tmp_path / "one", 1, backbone, **changes)
    together, others = run(chain, tmp_path / "two", 2, backbone, **changes)
    for name in alone:
        torch.testing.assert_close(together[name], alone[name], rtol=1e-3, atol=1e-4, msg=name)
    assert len(figures["grid"]) == 8 and figures["dropout"] == others["dropout"]
    for mine, theirs in zip(figures["grid"], others["grid"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-3)


@pytest.mark.slow
def test_two_processes_tune_a_backbone(chain: Chain, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "model": {"freeze_backbone": False},
        "training": {"epochs": 2, "optimizer": {"lr": 1e-4}},
        "batch": {"size": last_batch_of_one(chain)},
    }
    alone, figures = run(chain, tmp_path / "one", 1, **changes)
    together, others = run(chain, tmp_path / "two", 2, **changes)
    start = load_backbone(chain.paths["backbone"]).state_dict()
    moved = {name: value - start[name] for name, value in _backbone(alone).items()}
    apart = {name: value - _backbone(alone)[name] for name, value in _backbone(together).items()}
    # Positions are jittered at random in training, so not the same bits; of unrelated runs it would be 1.4 times.
    assert _norm(apart) < 0.8 * _norm(moved)
    for mine, theirs in zip(figures["history"], others["history"], strict=True):
        assert theirs["train_loss"] == pytest.approx(mine["train_loss"], rel=0.05) and theirs["step"] == mine["step"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["all", "blocks", "lora"])
def test_two_processes_tune_what_one_tunes_where_nothing_is_drawn_in_training(
    chain: Chain, tmp_path: Path, method: str
) -> None:
    """Without the jitter of positions both are one training: orders, blends, parts and LoRA's start are the same."""
    still = tmp_path / "backbone"
    shutil.copytree(chain.paths["backbone"], still)
    description = read_json(still / BACKBONE_CONFIG)
    (still / BACKBONE_CONFIG).write_text(json.dumps({**description, "pos_embed_rescale": None}), encoding="utf-8")
    write_manifest(still, "backbone", read_json(still / ARTIFACTS["backbone"].manifest))
    changes: dict[str, Any] = {
        "model": {"freeze_backbone": False},
        "training": {
            "epochs": 2,
            "optimizer": {"lr": 1e-3, "warmup": 0.2, "clip": 0.5, "decayed": "matrices"},
            "class_weights": "sampled",
            "label_smoothing": 0.1,
            "mixup": 0.4,
            "fine_tune": {"method": method, "layer_decay": 0.7, "device_batch_size": 3, "gradient_checkpointing": True},
        },
        "batch": {"size": last_batch_of_one(chain)},
    }
    alone, figures = run(chain, tmp_path / "one", 1, still, **changes)
    together, others = run(chain, tmp_path / "two", 2, still, **changes)
    start = load_backbone(still).state_dict()
    moved = {name: value - start[name] for name, value in _backbone(alone).items()}
    apart = {name: value - _backbone(alone)[name] for name, value in _backbone(together).items()}
    assert _norm(moved) > 0.01 and _norm(apart) < 0.02 * _norm(moved)
    for mine, theirs in zip(figures["history"], others["history"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-3)


def _backbone(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = f"{CLASSIFIER}backbone."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _norm(tensors: dict[str, torch.Tensor]) -> float:
    return float(torch.cat([value.flatten() for value in tensors.values()]).norm())


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [False, True], ids=["on features", "on pixels"])
def test_two_processes_go_on_together_from_an_epoch(chain: Chain, tmp_path: Path, tuned: bool) -> None:
    root = tmp_path / "kept"
    changes: dict[str, Any] = {
        "model": {"freeze_backbone": not tuned, "dropout_rate": 0.3},
        "training": {"epochs": 2, "optimizer": {"lr": 1e-4}, "checkpoint_minutes": 1e-9},
    }
    whole, figures = run(chain, tmp_path / "whole", 2, **changes)
    changes["training"]["checkpoint_root"] = str(root)
    run(chain, tmp_path / "first", 2, **changes)
    _, newest = sorted(root.rglob("step-*.safetensors"))
    newest.unlink()
    again, others = run(chain, tmp_path / "again", 2, **changes)
    assert others == figures
    assert all(torch.equal(again[name], value) for name, value in whole.items())
