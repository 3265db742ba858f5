"""What CI runs, here and on a public host: the same make targets, all of them, and no others."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """A machine on which make prints its target, `broken` fails, and nothing is missing."""
    for name in ("make", "kubectl", "chromedriver"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$1"\n[ "$1" != broken ]\n')
        (tmp_path / name).chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def made(machine: dict[str, str], *targets: str) -> tuple[int, list[str]]:
    done = subprocess.run([ROOT / ".ci" / "run", *targets], env=machine, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout.split()


def runs(job: dict[str, Any]) -> list[str]:
    """What the steps of a job run, once for each row of its matrix."""
    matrix = job.get("strategy", {}).get("matrix", {})
    name, rows = next(iter(matrix.items()), ("", [""]))
    texts = [step["run"] for step in job["steps"] if "run" in step]
    return [text.replace("${{ matrix.%s }}" % name, str(row)) for row in rows for text in texts]  # noqa: UP031


def test_without_arguments_ci_makes_every_target_and_stops_at_the_first_that_fails(machine: dict[str, str]) -> None:
    code, targets = made(machine)
    assert code == 0 and {"test", "check", "test-slow", "test-long", "test-containers"} < set(targets)
    assert made(machine, "check", "demo") == (0, ["check", "demo"])
    assert made(machine, "test", "broken", "check") == (1, ["test", "broken"])


def test_the_workflow_makes_what_ci_makes_and_nothing_else(machine: dict[str, str]) -> None:
    commands = [text for job in WORKFLOW["jobs"].values() for text in runs(job)]
    assert all(re.fullmatch(r"\.ci/run( [a-z-]+)+", text) for text in commands), commands
    called = {target for text in commands for target in text.split()[1:]}
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony and called <= set(phony[1].split())
    assert called == set(made(machine)[1])


def test_the_fast_targets_run_on_every_python_from_the_oldest_that_is_allowed() -> None:
    fast = WORKFLOW["jobs"]["fast"]
    assert set(runs(fast)) == {".ci/run test check"}
    versions = fast["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13"] and "matrix.python" in fast["container"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={versions[0]}"


def test_the_workflow_may_only_read_and_names_its_actions_by_full_tags() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in WORKFLOW["jobs"].values())
    actions = [step["uses"] for step in STEPS if "uses" in step]
    assert actions and all(re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", name) for name in actions), actions
    assert all("timeout-minutes" in job and job["runs-on"] == "ubuntu-24.04" for job in WORKFLOW["jobs"].values())
    assert WORKFLOW["concurrency"]["cancel-in-progress"] is True
