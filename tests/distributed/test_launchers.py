"""Launchers that are killed, told to stop, or two: real processes, and adapt's own on two nodes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from natix_lib.contracts import STEPS
from natix_lib.distributed.life import LOOKS
from natix_lib.files import sha256_file, write_json
from tests.cloud_storage import Cloud
from tests.distributed.test_trainjob import adapt_settings, kubernetes  # noqa: F401 - a fixture
from tests.kubernetes_api import Cluster, nodes
from tests.processes import PATIENCE
from tests.small_run import Chain

ROOT = Path(__file__).parent.parent.parent
BEAT = 3.0  # seconds that stand for a minute; ten of them are more than a launcher needs to start on a busy machine
QUICK = f"from natix_lib.distributed import jobs, life; jobs.POLL_SECONDS = 0.2; life.BEAT_SECONDS = {BEAT};"
LAUNCHER = (
    f"import json, sys; {QUICK} from natix_lib.steps import adapt; r = json.load(open(sys.argv[1]));"
    "adapt.run(r['settings'], **r['paths'])"
)
NODE = f"{QUICK} from natix_lib.distributed import node; node.main()"
Launch = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def launch(chain: Chain, kubernetes: Cluster, tmp_path: Path) -> Iterator[Launch]:  # noqa: F811
    launchers = []

    def launch(run: str, **explora: object) -> subprocess.Popen[bytes]:
        """The adapt step of a run, as a process in the pod of its Workflow."""
        outputs = {name: str(tmp_path / run / name) for name in STEPS["adapt"].outputs}
        settings = {**adapt_settings(**explora), "nodes": nodes().model_dump(mode="json")}
        write_json(tmp_path / f"{run}.json", {"settings": settings, "paths": {**chain.inputs("adapt"), **outputs}})
        kubernetes.launchers[f"pod-{run}"] = run
        command = [sys.executable, "-c", LAUNCHER, str(tmp_path / f"{run}.json")]
        environment = {**os.environ, "KFP_POD_NAME": f"pod-{run}"}
        with (tmp_path / f"{run}.log").open("ab") as log:
            launchers.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment))
        return launchers[-1]

    kubernetes.command = [sys.executable, "-c", NODE, "natix_lib.steps.adapt_worker"]
    yield launch
    for launcher in launchers:
        launcher.kill()
        launcher.wait()


def wait_for(happened: Callable[[], object], running: "subprocess.Popen[bytes] | None" = None) -> None:
    until = time.monotonic() + PATIENCE
    while not happened():
        assert (running is None or running.poll() is None) and time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_a_launcher_that_was_killed_finds_its_job(launch: Launch, kubernetes: Cluster, tmp_path: Path) -> None:  # noqa: F811
    kubernetes.command[2] = NODE.replace(f"= {BEAT}", f"= {10 * BEAT}")  # however long the next launcher takes to start
    killed = launch("run")
    wait_for(lambda: kubernetes.jobs, killed)
    killed.kill()
    killed.wait()
    assert len(kubernetes.jobs) == 1
    assert launch("run").wait(PATIENCE) == 0
    assert len(kubernetes.created) == 1 and not kubernetes.jobs
    assert (tmp_path / "run" / "adapted_backbone" / "backbone.json").is_file()


@pytest.mark.slow
def test_nodes_end_without_a_launcher_and_in_seconds_when_it_is_told_to_stop(
    launch: Launch,
    kubernetes: Cluster,  # noqa: F811
    tmp_path: Path,
) -> None:
    checkpoints = tmp_path / "checkpoints"
    endless = {"steps": 40_000, "checkpoint_every": 20_000, "checkpoint_root": str(checkpoints)}
    killed = launch("run", **endless)
    wait_for(lambda: b"steps: " in (tmp_path / "run.log").read_bytes(), killed)
    (pods,) = kubernetes.nodes.values()
    killed.kill()
    killed.wait()
    begun = time.monotonic()
    wait_for(lambda: all(pod.process.poll() is not None for pod in pods))
    assert [pod.process.poll() for pod in pods] == [0, 0]  # another code would start the container again
    assert time.monotonic() - begun > (LOOKS - 2) * BEAT
    (checkpoint,) = checkpoints.rglob("*.safetensors")  # of the step at which they ended

    stopped = launch("run", **endless)
    wait_for(lambda: len(kubernetes.created) == 2, stopped)
    wait_for(lambda: (tmp_path / "run.log").read_bytes().count(b"steps: ") > 1, stopped)
    assert len(kubernetes.jobs) == 1
    time.sleep((LOOKS + 2) * BEAT)  # until the mark of the one that was killed is old: the job would be left to it
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(PATIENCE) == 128 + signal.SIGTERM
    assert not kubernetes.jobs and kubernetes.deleted == [kubernetes.created[0]["metadata"]["name"]] * 2
    assert max(path.name for path in checkpoints.rglob("*.safetensors")) > checkpoint.name
    assert max(kubernetes.ends) < 25  # seconds; most of them on a loaded machine, and the grace is 30


@pytest.mark.slow
def test_two_equal_runs_at_once_share_a_job_and_both_end_well(
    launch: Launch,
    kubernetes: Cluster,  # noqa: F811
    cloud: Cloud,
    tmp_path: Path,
) -> None:
    runs = [launch("a"), launch("b")]
    assert [run.wait(PATIENCE) for run in runs] == [0, 0], [(tmp_path / f"{run}.log").read_text() for run in "ab"]
    (job,) = kubernetes.created
    assert not kubernetes.jobs and kubernetes.deleted == [job["metadata"]["name"]]
    assert not list(cloud.bucket.list_blobs(prefix="shared/"))
    weights = [sha256_file(tmp_path / run / "adapted_backbone" / "model.safetensors") for run in "ab"]
    assert weights[0] == weights[1]
