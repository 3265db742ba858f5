"""What a launcher prints of a job whose containers start again and whose streams break off."""

import sys
from pathlib import Path

import pytest
import torch

from natix_lib.distributed import jobs
from natix_lib.distributed.exchange import leave_answer
from natix_lib.distributed.trainjob import compute_on_nodes
from tests.distributed.test_trainjob import use_kubeconfig
from tests.kubernetes_api import cluster, nodes

NODE = """import os, pathlib, shutil, sys, time
source, uri = map(pathlib.Path, sys.argv[1:])
again = uri / "again"
if os.environ["PET_NODE_RANK"] == "1":
    while not (uri / "figures.json").exists():
        time.sleep(0.02)
elif not again.exists():
    again.touch()
    for step in range(4):
        print("steps:", step, flush=True)
        time.sleep(0.05)
    print("Failures: Root Cause", end="", flush=True)
    sys.exit(3)
else:
    print("going on from step 3\\n\\nsteps: 4", flush=True)
    for name in ("tensors.safetensors", "figures.json"):
        shutil.copy(source / name, uri / name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("cuts", [[], [2], [2, 2]])
def test_the_log_goes_on_with_the_container_that_starts_again_and_each_line_comes_once(
    cuts: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_answer(tmp_path, {"x": torch.ones(2)}, {"value": 7})
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.05)
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster") as kubernetes:
        use_kubeconfig(monkeypatch, kubernetes.kubeconfig)
        kubernetes.command = [sys.executable, "-c", NODE, str(tmp_path)]
        kubernetes.restarts = 1
        kubernetes.cuts = list(cuts)
        assert compute_on_nodes("train", "worker", {}, {}, 1, nodes(shared_root=str(tmp_path / "shared")))[1]
    lines = capsys.readouterr().out.splitlines()
    broken = [line for line in lines if "broke off" in line]
    logged = [line for line in lines if line not in broken]
    assert logged[0].startswith("TrainJob natix-train-") and bool(broken) == bool(cuts)
    steps = [f"steps: {step}" for step in range(4)]
    lost = "warning: node 0 of 2 ended with exit code 3 (Error) and starts again; where the training goes on stands in"
    after = ["Failures: Root Cause", f"{lost} the log that follows", "going on from step 3", "", "steps: 4"]
    assert logged[1:] == [*steps, *after]
