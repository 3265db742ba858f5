"""The command line as a person types it: exit codes, single lines, JSON lines."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from natix_lib import __version__, cli
from natix_lib.contracts import ARTIFACTS, STEPS
from natix_lib.errors import ConfigError
from tests.calibration_sets import write_set
from tests.street_sets import write_images

ROOT = Path(__file__).parents[2]


def natix(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "natix_lib.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=ROOT)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=True)


def write_config(folder: Path, root: Path, backbone: Path | str = "owner/vit") -> Path:
    values = {
        "data": {"data_root": str(root), "dataloader": {"num_workers": 0}},
        "split": {"ratios": {"train": 0.4, "val_select": 0.2, "val_calib": 0.2, "test": 0.2}},
        "model": {"backbone_id": str(backbone), "image_size": 32},
        "training": {"epochs": 10, "views": 2, "optimizer": {"lr": 1e-2}},
        "scrc": {"alpha": 0.3, "on_infeasible": "empirical", "bootstrap": 50},
        "export": {"policy": "calibrate"},
        "evaluate": {"bootstrap": 50},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_every_step_is_a_command_with_its_artifacts_as_options() -> None:
    for step, contract in STEPS.items():
        text = CliRunner().invoke(cli.app, [step, "--help"], env={"COLUMNS": "200"}).output
        options = set(re.findall(r"--[a-z-]+", text))
        assert options == {"--config", "--set", "--output", "--help"} | {
            f"--{artifact.replace('_', '-')}" for artifact in contract.inputs
        }


def test_calibrate_does_without_val_select_on_the_command_line(tmp_path: Path) -> None:
    path, (logits, labels) = write_config(tmp_path, tmp_path), write_set(tmp_path, strength=4.0)
    given = ["--val-calib-logits", logits, "--val-calib-labels", labels]
    result = invoke("calibrate", "-c", path, "-o", tmp_path / "out", *given)
    assert result.exit_code == 0 and json.loads(result.output.splitlines()[-1])["metrics"]["certified"] == 1.0
    select = write_set(tmp_path, changes={"role": "VAL_SELECT", "model_sha256": "other"})
    options = ["--val-select-logits", select[0], "--val-select-labels", select[1]]
    refused = invoke("calibrate", "-c", path, "-o", tmp_path / "other", *given, *options)
    assert "VAL_SELECT logits has 'other'" in str(refused.exception)


def test_the_config_is_printed_with_every_default(tmp_path: Path) -> None:
    result = invoke("config", "--config", write_config(tmp_path, tmp_path), "--set", "training.optimizer.lr=1e-4")
    printed = yaml.safe_load(result.output)
    kept = {"weight_decay": 1e-4, "decayed": "all", "warmup": 0.0, "clip": 0.0}
    assert printed["training"]["optimizer"] == {"lr": 1e-4, **kept}
    assert printed["scrc"]["delta"] == 0.1


def test_three_mistakes_are_reported_at_once_in_one_line_with_exit_code_two(tmp_path: Path) -> None:
    path = write_config(tmp_path, tmp_path)
    done = natix(
        "config", "-c", path, "-s", "training.epoks=3", "-s", "scrc.alpha=2", "-s",
        "model.backbone_id=facebook/dinov3-vith16-pretrain-lvd1689m",
    )  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: config: 3 mistakes: ")
    for part in ("did you mean epochs", "scrc.alpha", "use facebook/dinov3-vith16plus-pretrain-lvd1689m"):
        assert part in done.stderr


def test_the_config_explains_its_keys(tmp_path: Path) -> None:
    path = write_config(tmp_path, tmp_path)
    assert "  # Bound on the error rate of accepted images (" in invoke("config", "-c", path).output
    assert "scrc.alpha=0.05" in invoke("config", "--explain").output
    assert invoke("config", "--explain", "scrc.alpha").output.startswith("scrc.alpha\n  Bound on the error rate")
    assert "unit: share of accepted images" in invoke("config", "scrc.alpha", "--explain").output
    assert json.loads(invoke("config", "--schema").output)["title"] == "natix config"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--explain scrc.alfa", "'scrc.alfa' is not a known key, did you mean scrc.alpha?"),
        *(
            (arguments, "natix config takes --config FILE [--set section.key=value], --explain [KEY] or --schema")
            for arguments in (
                "",
                "scrc.alpha",
                "--explain --schema",
                "--schema -c {path}",
                "--explain -c {path}",
                "--explain -s scrc.alpha=0.1",
                "-c {path} scrc.alpha",
            )
        ),
    ],
)
def test_the_config_command_says_in_one_line_what_it_takes(tmp_path: Path, arguments: str, message: str) -> None:
    result = invoke("config", *arguments.format(path=write_config(tmp_path, tmp_path)).split())
    assert isinstance(result.exception, ConfigError) and str(result.exception) == message


def test_a_missing_config_is_one_line() -> None:
    done = natix("run", "--config", "gone.yaml", "--output", "out")
    assert (done.returncode, done.stderr) == (2, "error: cannot read config gone.yaml: No such file or directory\n")


@pytest.mark.slow
def test_steps_run_one_at_a_time_on_files(tmp_path: Path, tiny_backbone: Path) -> None:
    path = write_config(tmp_path, write_images(tmp_path / "source", groups=8), tiny_backbone)
    for step in ("ingest", "split", "fetch"):
        inputs = [f"--{name}={tmp_path / 'out' / ARTIFACTS[name].file}" for name in STEPS[step].inputs]
        result = invoke(step, "-c", path, "-o", tmp_path / "out", *inputs)
        assert result.exit_code == 0, result.output
        answer = json.loads(result.output.splitlines()[-1])
        assert [Path(name).exists() for name in answer["outputs"]] == [True] * len(answer["outputs"])
    again = natix("ingest", "-c", path, "-o", tmp_path / "out")
    assert again.returncode == 2 and "images exists: name another folder, or remove it" in again.stderr


def test_a_data_error_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = natix("ingest", "-c", write_config(tmp_path, tmp_path / "empty"), "-o", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == f"error: data.data_root {tmp_path / 'empty'} is empty\n"


def test_an_artifact_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = natix("evaluate", "-c", write_config(tmp_path, tmp_path), f"--test-set={tmp_path}",
                 f"--bundle={tmp_path / 'gone'}", "-o", tmp_path / "e")  # fmt: skip
    assert done.returncode == 2 and done.stderr == f"error: bundle folder {tmp_path / 'gone'} does not exist\n"


def test_data_and_backbone_are_drawn_once(tmp_path: Path) -> None:
    assert invoke("draw", "-o", tmp_path / "d", "--images", 60).exit_code == 0
    assert (tmp_path / "d" / "manifest.csv").is_file()
    done = natix("draw", "-o", tmp_path / "d")
    assert done.returncode == 2 and "exists: name another folder" in done.stderr


def test_the_version_is_told() -> None:
    assert invoke("--version").output == f"natix {__version__}\n"


def test_predict_prints_a_json_object_a_line_also_of_what_it_cannot_read(
    tmp_path: Path, picture: Callable[..., Image.Image], tiny_bundle: Path
) -> None:
    picture(60, 40).save(tmp_path / "a.jpg")
    picture(40, 60, seed=1).convert("L").save(tmp_path / "b.png")
    (tmp_path / "c.jpg").write_bytes(b"")
    done = natix("predict", "--bundle", tiny_bundle, tmp_path / "a.jpg", tmp_path / "c.jpg", tmp_path / "b.png")
    assert done.returncode == 2 and f"; the first that failed: {tmp_path / 'c.jpg'}: the file is empty\n" in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["a.jpg", "c.jpg", "b.png"]
    assert lines.pop(1) == {"image": str(tmp_path / "c.jpg"), "error": "the file is empty"}
    for line in lines:
        assert set(line) == {"image", "label", "probabilities", "score", "accepted"}
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert line["label"] == max(line["probabilities"], key=line["probabilities"].get)
        assert 0 <= line["score"] <= 1 and isinstance(line["accepted"], bool)


@pytest.mark.slow
def test_a_disk_that_is_full_is_one_line_and_leaves_no_manifest(tmp_path: Path) -> None:
    """The kernel refuses to let a file grow, as it does on a full disk."""
    path = write_config(tmp_path, write_images(tmp_path / "source", groups=24))
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000));"
        "from natix_lib.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "ingest", "-c", str(path), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith(f"error: cannot write {tmp_path / 'out' / 'images'}")
    assert len(done.stderr.splitlines()) == 1 and not list((tmp_path / "out").rglob("images.json"))
