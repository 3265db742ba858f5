"""What can be told of the images without building them."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "images" / "Dockerfile").read_text()
STAGES = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))


def test_the_dependencies_of_an_image_are_the_projects_and_stand_in_the_lock() -> None:
    command = [sys.executable, "images/requirements.py", "pyproject.toml"]
    installed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [
        name for extra in ("train", "gcs", "s3", "nodes", "serve") for name in project["optional-dependencies"][extra]
    ]
    assert set(installed) == {name for name in [*project["dependencies"], *extras] if not name.startswith("kfp")}
    (expression,) = re.findall(r"sed -nE '(.*?)' /build/\*\.lock", DOCKERFILE)
    locks = [ROOT / "requirements.lock", ROOT / "requirements-torch.lock"]
    constraints = subprocess.run(["sed", "-nE", expression, *locks], capture_output=True, text=True, check=True).stdout
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9a-z.]+", line) for line in constraints.splitlines())
    locked = {line.split("==")[0].lower().replace("_", "-") for line in constraints.splitlines()}
    assert {re.split(r"[<>=,\[]", name)[0] for name in installed} <= locked
    assert {"kfp", "kfp-pipeline-spec"} <= locked  # what the Dockerfile takes from it by name


def test_dependencies_come_before_the_source_in_the_build_and_in_the_image() -> None:
    assert STAGES["built"].index("pip install") < STAGES["built"].index("COPY images/compile.py")
    assert STAGES["built"].index("pip install") < STAGES["built"].index("COPY natix_lib")
    copied = re.findall(r"^COPY .*", STAGES["run"], re.MULTILINE)
    assert copied == [f"COPY --from=built {place} {place}" for place in ("/opt/natix", "/opt/source")]


def test_both_images_run_as_nobody_and_differ_in_their_names_alone() -> None:
    assert re.search(r"^USER 65532:65532$", STAGES["run"], re.MULTILINE)
    for target in ("cpu", "gpu"):
        assert f"FROM run AS {target}\n" in DOCKERFILE
        instructions = re.findall(r"^[A-Z]+(?= )", STAGES[target], re.MULTILINE)
        assert instructions == ["LABEL"]


def test_only_what_the_build_needs_is_sent_to_the_engine() -> None:
    ignore, *sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignore == "*"
    named = set(re.findall(r"^COPY (?!--from)(.*) \S+$", STAGES["built"], re.MULTILINE))
    assert {line[1:] for line in sent if line.startswith("!")} == {name for line in named for name in line.split()}


def with_engine(folder: Path, programs: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """Run images/with-engine on a machine with these programs."""
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(
        [ROOT / "images" / "with-engine", *command], env=environment, capture_output=True, text=True, timeout=60
    )


def test_an_engine_that_answers_is_used_and_the_commands_exit_code_is_kept(tmp_path: Path) -> None:
    done = with_engine(tmp_path, {"docker": "exit 0"}, "sh", "-c", "echo ran; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "ran\n", "")


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (1000, "with-engine: no Docker engine answers and only root can start one: start one, or run this as root"),
        (0, "with-engine: the Docker engine did not start; above is the end of its log"),
    ],
)
def test_an_engine_that_cannot_be_started_is_one_clear_line(tmp_path: Path, user: int, message: str) -> None:
    programs = {"docker": "exit 1", "id": f"echo {user}", "dockerd": "echo no cgroups >&2; exit 1"}
    done = with_engine(tmp_path, programs, "echo", "ran")
    assert (done.returncode, done.stdout) == (1, "")
    *log, line = done.stderr.splitlines()
    assert line == message and log == ([] if user else ["no cgroups"])
