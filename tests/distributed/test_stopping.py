import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from natix_lib.contracts import STEPS
from tests.explora.small import small
from tests.processes import MARK, PATIENCE, all_gone
from tests.small_run import Chain

ROOT = Path(__file__).parent.parent.parent
STEP = """import json, sys
from pathlib import Path
from natix_lib.distributed.processes import compute_in_processes
settings, inputs, folder = map(json.loads, sys.argv[1:])
compute_in_processes("natix_lib.steps.adapt_worker", settings, inputs, Path(folder), 2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_processes_of_torchrun_end_with_the_step(chain: Chain, tmp_path: Path, number: signal.Signals) -> None:
    explora = small(steps=4000, batch_size=16, device_batch_size=8, checkpoint_every=2, checkpoint_root=str(tmp_path))
    settings = {"num_workers": 1, "image_size": 32, "num_gpus": 1, "explora": explora.model_dump(mode="json")}
    inputs = {name: chain.paths[name] for name in STEPS["adapt"].inputs}
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-c", STEP, *map(json.dumps, (settings, inputs, str(tmp_path)))],
        cwd=ROOT,
        env={**os.environ, MARK: mark},
    )
    while not list(tmp_path.rglob("*.safetensors")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(PATIENCE) == (128 + number if number == signal.SIGTERM else -number)
    assert all_gone(mark, 60) == []
