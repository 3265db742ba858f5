"""What the built images are, hold and refuse."""

import subprocess
import time
from pathlib import Path
from typing import Any

import docker
import pytest

from natix_lib import __version__, config
from natix_pipelines.targets import Target
from natix_pipelines.training import build
from tests.calibration_sets import write_set
from tests.cli.test_cli import write_config
from tests.containers.conftest import Figures, Images
from tests.containers.engine import NOBODY, run_command, run_pipeline

pytestmark = pytest.mark.containers
CLI = ("python3", "-m", "natix_lib.cli")
TOKEN = "hf_a-secret-of-the-fetch-step"
BARE = r"""FROM {}
USER 0
RUN mkdir /bare && printf 'import atexit, time\natexit.register(time.sleep, 2)\n' > /bare/sitecustomize.py
USER 65532
ENV PYTHONPATH=/bare
"""  # KFP loses the log of a container that is gone at once
LABEL = "org.opencontainers.image."


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def image(request: pytest.FixtureRequest, images: Images) -> str:
    name: str = getattr(images, request.param)
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that every user may read, unlike pytest's own."""
    folder = tmp_path / "given"
    folder.mkdir()
    return folder


def inspected(image: str) -> dict[str, Any]:
    client = docker.from_env()
    try:
        attributes: dict[str, Any] = client.images.get(image).attrs
    finally:
        client.close()
    return attributes


def test_an_image_imports_the_library_and_what_its_steps_may_need(image: str) -> None:
    needed = "natix_lib, google.cloud.storage, kubeflow.trainer, kubernetes.client, starlette.applications, uvicorn"
    done = run_command(image, "python", "-c", f"import {needed}; print(natix_lib.__version__)")
    assert (done.returncode, done.stdout.strip()) == (0, __version__), done.stderr


def test_an_image_holds_no_installer(image: str) -> None:
    done = run_command(image, "python3", "-m", "pip", "--version")
    assert done.returncode == 1 and "No module named pip" in done.stderr
    assert run_command(image, "sh", "-c", "ls /opt/natix/bin/pip*").returncode != 0


def test_an_image_is_nobodys_and_says_what_it_is(image: str) -> None:
    found = inspected(image)["Config"]
    assert found["User"] == NOBODY
    labels = {name.removeprefix(LABEL): value for name, value in found["Labels"].items() if name.startswith(LABEL)}
    assert set(labels) == {"title", "description", "version", "revision", "created", "licenses"}
    assert all(labels.values()) and (labels["version"], labels["licenses"]) == (__version__, "Apache-2.0")


def test_the_cpu_image_is_smaller_than_1600_megabytes(images: Images, figures: Figures) -> None:
    sizes = {name: inspected(name)["Size"] / 1e9 for name in (images.cpu, images.gpu)}
    figures("CPU image, GB", f"{sizes[images.cpu]:.2f}")
    figures("GPU image with torch's CPU build, GB", f"{sizes[images.gpu]:.2f}")
    assert sizes[images.cpu] < 1.6


def test_a_write_outside_tmp_is_refused_in_one_clear_line(image: str, folder: Path) -> None:
    write_set(folder)
    write_config(folder, Path("/data"), Path("/backbone"))
    for output, code in (("/opt/out", 2), ("/data/out", 2), ("/tmp/out", 0)):
        done = run_command(
            image, *CLI, "sweep", "--config", "/data/config.yaml", "--val-calib-logits", "/data/logits",
            "--val-calib-labels", "/data/labels", "--output", output, sources={"/data": folder},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        if code:
            (line,) = done.stderr.strip().splitlines()
            assert output in line and "Read-only file system" in line


def test_the_token_is_not_shown_when_a_backbone_cannot_be_fetched(images: Images, folder: Path) -> None:
    write_config(folder, Path("/data"), "facebook/dinov3-vits16-pretrain-lvd1689m")
    done = run_command(
        images.cpu, *CLI, "fetch", "--config", "/data/config.yaml", "--output", "/tmp/out",
        sources={"/data": folder}, environment={"HF_TOKEN": TOKEN},
    )  # fmt: skip
    assert done.returncode == 2 and "dinov3-vits16" in done.stderr.strip().splitlines()[-1]
    assert TOKEN not in done.stdout + done.stderr


def test_a_task_in_an_image_without_the_library_says_so_and_fails(images: Images, folder: Path) -> None:
    bare = "natix-bare:test"
    command = ["docker", "build", "--quiet", "--tag", bare, "-"]
    subprocess.run(command, input=BARE.format(images.cpu), text=True, capture_output=True, check=True)
    path = write_config(folder, Path("/data"), Path("/backbone"))
    run = run_pipeline(build(Target("local", bare, bare), config.load(path)), folder / "root", {})
    said = [line.strip() for line in run.log.splitlines()]  # Docker mixes what goes to stdout and to stderr
    assert "ModuleNotFoundError: No module named 'natix_lib'" in said
    assert run.containers and all(container.exit_code == 1 for container in run.containers)
    assert {container.task for container in run.containers} <= {"ingest", "fetch"}  # the steps that wait for no other
    assert run.error


def test_calibrate_starts_cold_in_seconds(images: Images, folder: Path, figures: Figures) -> None:
    write_set(folder, n=10_000, names=tuple(f"class-{number}" for number in range(13)))
    write_config(folder, Path("/data"), Path("/backbone"))
    started = time.monotonic()
    done = run_command(
        images.cpu, *CLI, "calibrate", "--config", "/data/config.yaml", "--val-calib-logits", "/data/logits",
        "--val-calib-labels", "/data/labels", "--output", "/tmp/out", sources={"/data": folder},
    )  # fmt: skip
    figures("calibrate on 10,000 images of 13 classes, cold start, s", f"{time.monotonic() - started:.1f}")
    assert done.returncode == 0, done.stderr
    started = time.monotonic()
    assert run_command(images.cpu, "python3", "-c", "import natix_lib").returncode == 0
    figures("docker run python3 -c 'import natix_lib', s", f"{time.monotonic() - started:.1f}")
