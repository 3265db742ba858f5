"""`kfp run submit` and `kfp pipeline upload` against a stand-in of the KFP API on the loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.loopback import Handler, serving

RUN = {
    "run_id": "r1",
    "display_name": "first",
    "state": "PENDING",
    "experiment_id": "e1",
    "created_at": "2025-01-01T00:00:00Z",
}
GOLDEN = Path(__file__).parent / "golden"
KFP = Path(sys.executable).parent / "kfp"


@dataclass
class Api:
    """Where it listens, and what was posted to it."""

    url: str
    runs: list[dict[str, Any]] = field(default_factory=list)
    uploads: list[bytes] = field(default_factory=list)


@pytest.fixture
def api() -> Iterator[Api]:
    class Pipelines(Handler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            experiment = {"experiment_id": "e1", "display_name": "street"}
            if path.endswith("/healthz"):
                self.answer_json({"multi_user": False})
            elif path.endswith("/experiments"):
                self.answer_json({"experiments": [experiment]})
            elif "/runs/" in path:
                self.answer_json(RUN)
            else:
                self.answer_json(experiment)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if urlsplit(self.path).path.endswith("/runs"):
                found.runs.append(json.loads(body))
                self.answer_json(RUN)
            else:
                found.uploads.append(body)
                self.answer_json({"pipeline_id": "p1", "display_name": "natix", "created_at": "2025-01-01T00:00:00Z"})

    with serving(Pipelines) as url:
        found = Api(url)
        yield found


def kfp(api: Api, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KF_")}
    return subprocess.run(
        [str(KFP), "--endpoint", api.url, *arguments], capture_output=True, text=True, timeout=120, env=environment
    )


@pytest.mark.parametrize("variant", ["training", "training-explora"])
def test_a_run_is_submitted_with_its_specification_and_parameters(api: Api, variant: str) -> None:
    package = str(GOLDEN / "kubeflow" / f"{variant}.yaml")
    scrc = {"alpha": 0.02, "delta": 0.05, "on_infeasible": "abstain"}
    done = kfp(
        api, "run", "submit", "-e", "street", "-r", "first", "-f", package, 'num_gpus="2"', f"scrc={json.dumps(scrc)}"
    )
    assert done.returncode == 0, done.stderr
    (run,) = api.runs
    assert run["display_name"] == "first" and run["experiment_id"] == "e1"
    assert run["runtime_config"]["parameters"]["scrc"] == scrc
    assert run["runtime_config"]["parameters"]["num_gpus"] == "2"  # quoted: kfp parses values as JSON
    specification = run["pipeline_spec"]["pipeline_spec"]
    assert specification["pipelineInfo"]["name"] == f"natix-{variant}"
    assert (
        "exec-train" in run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    )


def test_the_pipeline_is_uploaded(api: Api) -> None:
    done = kfp(api, "pipeline", "upload", str(GOLDEN / "kubeflow" / "training.yaml"), "-p", "natix")
    assert done.returncode == 0, done.stderr
    assert b"natix-training" in api.uploads[0]
