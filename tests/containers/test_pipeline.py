"""The whole pipeline in its images, under KFP's DockerRunner: as nobody, read-only, without a network."""

import json
import time
from pathlib import Path

import pytest

from natix_lib import config
from natix_lib.bundle.runtime import Bundle
from natix_lib.contracts import STEPS
from natix_lib.data.decode import open_image
from natix_pipelines.targets import Target
from natix_pipelines.training import build
from tests.cli.test_cli import write_config
from tests.containers.conftest import Figures, Images
from tests.containers.engine import NOBODY, Run, run_command, run_pipeline
from tests.street_sets import write_images
from tests.test_end_to_end import SMALL_EXPLORA

pytestmark = pytest.mark.containers
TOKEN = "hf_a-secret-that-every-container-holds"
CPU_TASKS = sorted(name for name, step in STEPS.items() if not step.gpu)
SERVED = """
import base64, json, subprocess, sys, time, urllib.request

command = [sys.executable, "-m", "natix_lib.cli", "serve", "--bundle", "/bundle", "--drain", "0"]
server = subprocess.Popen(command)
body = {"instances": [{"image": {"b64": base64.b64encode(open(sys.argv[1], "rb").read()).decode()}}]}
request = urllib.request.Request("http://127.0.0.1:8080/v1/models/natix:predict", json.dumps(body).encode())
for _ in range(300):
    try:
        print(urllib.request.urlopen(request).read().decode())
        break
    except OSError:
        time.sleep(0.1)
server.terminate()
sys.exit(server.wait())
"""
VARIANTS = {"training": (["train"], ()), "training-explora": (["adapt", "train"], SMALL_EXPLORA)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small images that a tiny backbone tells apart."""
    return write_images(tmp_path_factory.mktemp("containers") / "street", groups=40)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    """The pipeline without and with ExPLoRA."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def run(
    variant: str,
    images: Images,
    source: Path,
    tiny_backbone: Path,
    figures: Figures,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """A run from the data to the report."""
    folder = tmp_path_factory.mktemp(variant)
    path = write_config(folder, Path("/data"), Path("/backbone"))
    pipeline = build(Target("local", images.cpu, images.gpu), config.load(path, VARIANTS[variant][1]))
    sources = {"/data": source, "/backbone": tiny_backbone}
    started = time.monotonic()
    run = run_pipeline(pipeline, folder / "root", sources, {"HF_TOKEN": TOKEN})
    assert not run.error, run.log[-4000:]
    figures(f"{variant}, {len(run.tasks)} tasks in containers, s", f"{time.monotonic() - started:.0f}")
    return run


def test_every_task_runs_once_in_its_image_and_ends_well(run: Run, variant: str, images: Images) -> None:
    expected = {**dict.fromkeys(CPU_TASKS, images.cpu), **dict.fromkeys(VARIANTS[variant][0], images.gpu)}
    assert [container.task for container in run.containers] == run.tasks
    assert sorted((container.task, container.image) for container in run.containers) == sorted(expected.items())
    assert {container.exit_code for container in run.containers} == {0}


def test_every_task_runs_as_nobody_on_a_read_only_root_without_a_network(run: Run) -> None:
    for container in run.containers:
        assert (container.user, container.read_only, container.network) == (NOBODY, True, "none"), container.task
        assert container.writable == {str(run.root), "/kfp-workspace"}, container.task
    assert {path.stat().st_uid for path in run.root.rglob("*")} == {int(NOBODY.split(":")[0])}


def test_nothing_is_installed_when_a_task_runs(run: Run) -> None:
    assert not [container.task for container in run.containers if "pip install" in " ".join(container.command)]
    assert "pip install" not in run.log and "Successfully installed" not in run.log


def test_the_token_that_every_task_holds_is_in_no_log_and_in_no_file(run: Run) -> None:
    assert all(f"HF_TOKEN={TOKEN}" in container.environment for container in run.containers)
    assert TOKEN not in run.log
    assert not [path for path in run.root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_the_bundle_predicts_the_same_here_and_in_its_image(run: Run, images: Images, source: Path) -> None:
    folder = Path(run.outputs["bundle"].path)
    bundle = Bundle.load(folder)
    assert bundle.check_golden() < 1e-3
    image = source / "01-0.png"
    done = run_command(
        images.cpu, "python3", "-m", "natix_lib.cli", "predict", "--bundle", "/bundle", f"/data/{image.name}",
        sources={"/bundle": folder, "/data": source},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    (expected,) = bundle.predict([open_image(image)])
    assert (said["label"], said["accepted"]) == (expected.label, expected.accepted)
    assert said["score"] == pytest.approx(expected.score, abs=1e-4)


def test_the_bundle_is_served_in_its_image(run: Run, images: Images, source: Path) -> None:
    folder = Path(run.outputs["bundle"].path)
    done = run_command(
        images.cpu, "python3", "-c", SERVED, "/data/01-0.png", sources={"/bundle": folder, "/data": source}
    )
    assert done.returncode == 0, done.stderr
    answer = next(line for line in done.stdout.splitlines() if line.startswith("{"))  # beside the server's log
    (said,) = json.loads(answer)["predictions"]
    (expected,) = Bundle.load(folder).predict([open_image(source / "01-0.png")])
    assert said["label"] == expected.label and said["score"] == pytest.approx(expected.score, abs=1e-4)
