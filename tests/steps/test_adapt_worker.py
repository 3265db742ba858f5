import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from natix_lib.contracts import STEPS
from natix_lib.distributed.exchange import FIGURES, REQUEST, TENSORS
from natix_lib.distributed.processes import compute_in_processes
from natix_lib.errors import TrainingError
from natix_lib.files import write_json
from natix_lib.steps.adapt_worker import compute_from_paths
from tests.explora.small import small
from tests.small_run import Chain

ROOT = Path(__file__).parent.parent.parent


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "num_workers": 0,
        "image_size": 32,
        "num_gpus": 1,
        "explora": small(steps=3, batch_size=16, **changes).model_dump(mode="json"),
    }


def run(chain: Chain, folder: Path, processes: int, **changes: Any) -> tuple[dict, dict]:
    inputs = {name: chain.paths[name] for name in STEPS["adapt"].inputs}
    if processes == 1:
        return compute_from_paths(settings(**changes), inputs)
    folder.mkdir()
    return compute_in_processes(compute_from_paths.__module__, settings(**changes), inputs, folder, processes)


@pytest.mark.slow
def test_two_processes_give_what_one_gives_with_twice_the_batch(chain: Chain, tmp_path: Path) -> None:
    one_state, one = run(chain, tmp_path / "one", 1, device_batch_size=16)
    two_state, two = run(chain, tmp_path / "two", 2, device_batch_size=8)
    assert one["trained"] == two["trained"] and len(two["history"]) == 3
    for key in ("loss", "dino", "ibot", "koleo", "lr"):
        np.testing.assert_allclose(
            [row[key] for row in two["history"]], [row[key] for row in one["history"]], rtol=2e-3, err_msg=key
        )
    apart = [float((one_state[name] - two_state[name]).abs().max()) for name in one_state]
    assert max(apart) < 2e-3


@pytest.mark.slow
def test_the_reason_of_a_process_that_fails_comes_back(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"is (nan|inf) at step 1: lower explora.lr"):
        run(chain, tmp_path / "two", 2, device_batch_size=8, lr=1e30)


@pytest.mark.slow
def test_a_run_that_was_killed_continues_bit_for_bit(chain: Chain, tmp_path: Path) -> None:
    def request(name: str, root: str) -> Path:
        (tmp_path / name).mkdir()
        inputs = {key: chain.paths[key] for key in STEPS["adapt"].inputs}
        thirty_steps = settings(device_batch_size=8, checkpoint_every=1, checkpoint_root=root)
        thirty_steps["explora"]["steps"] = 30
        write_json(tmp_path / name / REQUEST, {"inputs": inputs, "settings": thirty_steps})
        return tmp_path / name

    held, holder = os.pipe()  # its end would end the processes

    def start(folder: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "natix_lib.steps.adapt_worker", str(folder)]
        return subprocess.Popen(command, cwd=ROOT, stdin=held)

    assert start(request("whole", "")).wait() == 0
    killed = request("killed", str(tmp_path / "kept"))
    process = start(killed)
    while not list((tmp_path / "kept").rglob("step-00000003.safetensors")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / FIGURES).exists()
    assert start(killed).wait() == 0
    for name in (TENSORS, FIGURES):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    os.close(holder)
    os.close(held)
