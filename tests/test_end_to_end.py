"""The whole pipeline under KFP's local runner, as `natix run` starts it. Minutes, so in `make test-slow`."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from natix_lib import config
from natix_lib.bundle.runtime import Bundle
from natix_lib.contracts import read_manifest
from natix_lib.data.decode import open_image
from natix_lib.demo.dataset import draw_dataset
from natix_lib.files import read_json, sha256_file
from natix_pipelines import local
from natix_pipelines.training import steps_of
from tests.cli.test_cli import natix, write_config
from tests.pipelines.test_local import Recorder
from tests.short_stack import on_a_short_stack
from tests.street_sets import write_images, write_manifest

pytestmark = pytest.mark.slow
beside_its_run = pytest.mark.xdist_group("street")  # in one process, so that the run they start from is made once
ROOT = Path(__file__).parent.parent
SMALL_EXPLORA = (
    "model.init_from_explora=true",
    "explora.steps=4",
    "explora.batch_size=16",
    "explora.device_batch_size=16",
    "explora.prototypes=64",
    "explora.head_hidden=32",
    "explora.head_bottleneck=16",
    "explora.local_crops=2",
    "explora.rank=4",
    "explora.promote=always",
)
EVERY_STEP = sorted(steps_of(with_explora=False))


def run(path: Path, out: Path, cache: Path, *overrides: str) -> Recorder:
    display = Recorder()
    on_a_short_stack(local.run, config.load(path, overrides), out, cache, display)
    return display


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> tuple[Path, Path]:
    """A folder with a config for small images, and a cache in which the pipeline has run once, to `first`."""
    folder = tmp_path_factory.mktemp("street")
    path = write_config(folder, write_images(folder / "source", groups=40), tiny_backbone)
    run(path, folder / "first", folder / "cache")
    return folder, path


@beside_its_run
def test_a_run_leaves_a_bundle_a_report_and_a_folder_for_each_step(street: tuple[Path, Path]) -> None:
    first = street[0] / "first"
    names = {path.relative_to(first).as_posix() for path in first.glob("*")}
    assert names == {"bundle", "report.html", "config.yaml", "run.log"} | set(EVERY_STEP) - {"export"}
    assert Bundle.load(first / "bundle").check_golden() < 1e-3
    assert (first / "train" / "metrics.csv").read_text().startswith("epoch,step,lr")
    evaluation = read_json(first / "evaluate" / "evaluation.json")
    assert evaluation["metrics"]["accuracy"]["value"] > 0.8
    assert evaluation["provenance"]["bundle_sha256"] == sha256_file(first / "bundle" / "bundle.json")
    assert config.load(first / "config.yaml").export.policy == "calibrate"


@beside_its_run
def test_a_second_run_with_another_scrc_repeats_nothing_before_calibrate(street: tuple[Path, Path]) -> None:
    folder, path = street
    display = run(path, folder / "second", folder / "cache", "scrc.alpha=0.25")
    assert sorted(event.split()[1] for event in display.events if event.startswith("cached")) == sorted(
        set(EVERY_STEP) - {"calibrate", "export", "evaluate"}
    )
    assert [event.split()[1] for event in display.events if event.startswith("finished")] == [
        "calibrate", "export", "evaluate",
    ]  # fmt: skip
    assert read_json(folder / "second" / "calibrate" / "scrcparams.json")["guarantee"]["alpha"] == 0.25


@beside_its_run
def test_changed_images_are_read_again_although_the_config_is_the_same(street: tuple[Path, Path]) -> None:
    folder, path = street
    (folder / "source" / "note.txt").write_text("new")
    display = run(path, folder / "third", folder / "cache")
    assert "finished ingest" in display.events and "cached fetch" in display.events


@beside_its_run
def test_the_same_seed_gives_the_same_bundle_hashes_twice(street: tuple[Path, Path]) -> None:
    folder, path = street
    run(path, folder / "fresh", folder / "another-cache")
    first, fresh = (read_manifest(folder / name / "bundle", "bundle") for name in ("first", "fresh"))
    assert first == fresh
    assert sha256_file(folder / "first" / "bundle" / "bundle.json") == sha256_file(
        folder / "fresh" / "bundle" / "bundle.json"
    )
    run(path, folder / "other", folder / "cache", "training.seed=5")
    assert read_manifest(folder / "other" / "bundle", "bundle")["model"] != first["model"]


@beside_its_run
def test_the_command_line_runs_the_pipeline_and_predicts(street: tuple[Path, Path]) -> None:
    folder, path = street
    done = natix("run", "-c", path, "-o", folder / "typed", "--cache", folder / "cache")
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout and "majority class" in done.stdout
    assert f"bundle    {folder / 'typed' / 'bundle'}" in done.stdout
    image = folder / "source" / "01-0.png"
    answer = json.loads(natix("predict", "--bundle", folder / "typed" / "bundle", image).stdout)
    (expected,) = Bundle.load(folder / "typed" / "bundle").predict([open_image(image)])
    assert (answer["label"], answer["accepted"]) == (expected.label, expected.accepted)
    again = natix("run", "-c", path, "-o", folder / "typed", "--cache", folder / "cache")
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1) and "exists" in again.stderr


@pytest.mark.parametrize("case", ["one class in a split", "loss is nan"])
def test_a_run_that_must_not_look_green_exits_two_and_leaves_no_bundle(
    tmp_path: Path, tiny_backbone: Path, case: str
) -> None:
    root = write_images(tmp_path / "source", groups=24)
    overrides: list[str] = []
    if case == "one class in a split":
        rows: list[dict[str, Any]] = list(csv.DictReader((root / "manifest.csv").read_text().splitlines()))
        write_manifest(root, [{**r, "split": "test" if r["group"] in ("g1", "g3") else "train"} for r in rows])
    else:
        overrides = ["-s", "training.optimizer.lr=1e30"]
    path = write_config(tmp_path, root, tiny_backbone)
    done = natix("run", "-c", path, "-o", tmp_path / "out", "--cache", tmp_path / "cache", *overrides)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert not list((tmp_path / "cache").rglob("bundle.json"))
    last = done.stderr.strip().splitlines()[-1]
    failed, message = (
        ("split", "error: split TEST holds one class only: Roadwork")
        if overrides == []
        else ("train", "error: weights are NaN or infinite after epoch 1")
    )
    assert last.startswith(message) and f"failed  {failed}" in done.stderr
    assert "done    export" not in done.stderr


def test_a_killed_run_leaves_nothing_that_is_taken_for_whole(tmp_path: Path, tiny_backbone: Path) -> None:
    path = write_config(tmp_path, write_images(tmp_path / "source", groups=40), tiny_backbone)
    command = [sys.executable, "-m", "natix_lib.cli", "run", "-c", str(path), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*command, "--cache", str(tmp_path / "cache")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "done    split" in line:
            break
    kept = tmp_path / "cache" / "artifacts" / ".steps"
    while len(list(kept.glob("*.json"))) < 3:  # ingest, fetch, split: kept a moment after it is told
        time.sleep(0.05)
    subprocess.run(["pkill", "-KILL", "-g", str(process.pid)], check=True)
    process.wait()
    process.stderr.close()
    assert not (tmp_path / "out").exists()
    display = run(path, tmp_path / "out", tmp_path / "cache")
    assert "cached split" in display.events and "finished train" in display.events
    assert Bundle.load(tmp_path / "out" / "bundle").manifest["policy"]["step"] == "calibrate"


@beside_its_run
def test_the_variant_with_explora_trains_on_what_adapt_made(street: tuple[Path, Path]) -> None:
    folder, path = street
    display = run(path, folder / "explora", folder / "cache", *SMALL_EXPLORA)
    assert "cached ingest" in display.events and "finished adapt" in display.events
    adapted = read_manifest(folder / "explora" / "adapt" / "backbone", "backbone")
    made = Bundle.load(folder / "explora" / "bundle").manifest
    assert made["provenance"]["backbone_sha256"] == adapted["weights_sha256"] != adapted["adaptation"]["base_sha256"]
    assert (folder / "explora" / "adapt" / "report.html").is_file()
    assert (folder / "explora" / "adapt" / "metrics.csv").read_text().startswith("step,lr,momentum")


def test_thirteen_classes_run_through_the_same_pipeline(tmp_path: Path, tiny_backbone: Path) -> None:
    draw_dataset(tmp_path / "source", images=640, classes=13)
    path = write_config(tmp_path, tmp_path / "source", tiny_backbone)
    run(path, tmp_path / "out", tmp_path / "cache", "model.num_classes=13", "export.policy=sweep")
    evaluation = read_json(tmp_path / "out" / "evaluate" / "evaluation.json")
    assert len(evaluation["confusion"]) == 13
    assert evaluation["metrics"]["accuracy"]["value"] > evaluation["baseline"]["accuracy"]["value"]


def test_real_road_photographs_beat_the_majority_class(real_data: Path, tmp_path: Path) -> None:
    root = f"data.data_root={real_data / 'roadwork-real'}"
    run(ROOT / "pipelines/configs/roadwork_real.yaml", tmp_path / "out", tmp_path / "cache", root)
    evaluation = read_json(tmp_path / "out" / "evaluate" / "evaluation.json")
    # Three of four images show no roadwork, so that always saying so is right three times of four: its MCC is 0.
    assert evaluation["baseline"]["class"] == "None" and evaluation["metrics"]["mcc"]["low"] > 0.5
    assert evaluation["metrics"]["accuracy"]["value"] > evaluation["baseline"]["accuracy"]["value"]
    roles = read_json(tmp_path / "out" / "split" / "splits.json")["roles"]
    assert evaluation["n"] == len(roles["TEST"])
    drives: dict[str, set[str]] = {}
    for role, names in roles.items():
        for name in names:
            if name.startswith("images/camvid_"):
                drives.setdefault(name.split("_")[1], set()).add(role)
    assert len(drives) == 3 and all(len(roles) == 1 for roles in drives.values())  # each drive in one role


def test_ten_classes_of_hugging_face_parquet_run_through_the_same_command(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "cifar").mkdir()
    for name, rows in (("train", 5000), ("test", 1000)):
        pq.write_table(
            pq.read_table(real_data / "cifar10-part" / f"{name}.parquet").slice(0, rows),
            tmp_path / "cifar" / f"{name}.parquet",
        )
    done = natix(
        "run", "-c", "pipelines/configs/cifar10.yaml", "-o", tmp_path / "out", "--cache", tmp_path / "cache",
        "-s", f"data.data_root={tmp_path / 'cifar'}", "-s", "training.epochs=8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    evaluation = read_json(tmp_path / "out" / "evaluate" / "evaluation.json")
    assert evaluation["n"] == 1000 and np.array(evaluation["confusion"]).shape == (10, 10)
    assert evaluation["metrics"]["accuracy"]["low"] > 0.4 > evaluation["baseline"]["accuracy"]["value"]
