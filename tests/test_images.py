"""What can be told of the images without building them."""

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
    wanted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]) < set(wanted)
    locked = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "requirements.lock").read_text().splitlines()
    }
    assert {re.split(r"[<>=,\[]", name)[0] for name in wanted} <= locked
    assert {"kfp", "kfp-pipeline-spec"} <= locked  # what the Dockerfile takes from it by name


def test_dependencies_come_before_the_source() -> None:
    built = STAGES["built"]
    assert built.index("pip install") < built.index("COPY natix_lib")


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_runs_as_nobody_and_holds_only_what_was_built(target: str) -> None:
    stage = STAGES[target]
    assert re.search(r"^USER 65532:65532$", stage, re.MULTILINE)
    assert re.findall(r"^COPY .*", stage, re.MULTILINE) == ["COPY --from=built /opt/natix /opt/natix"]


def test_only_what_the_build_needs_is_sent_to_the_engine() -> None:
    ignore, *sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignore == "*"
    named = set(re.findall(r"^COPY (?!--from)(.*) \S+$", STAGES["built"], re.MULTILINE))
    assert {line[1:] for line in sent if line.startswith("!")} == {name for line in named for name in line.split()}
