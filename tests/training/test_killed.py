"""train is killed at random moments, and what goes on gives the bytes of what was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MOMENTS = 10


def start(backbone: Path, path: str, root: str, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.training.killed", str(backbone), path, root, str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout and process.stdout.readline() == "begun\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("path", ["features", "pixels"])
def test_ten_kills_at_random_moments_change_no_byte(
    tiny_backbone: Path, tmp_path: Path, path: str, number: signal.Signals
) -> None:
    whole = start(tiny_backbone, path, "", tmp_path / "whole")
    began = time.monotonic()
    whole.communicate()
    assert whole.returncode == 0
    seconds, moments = time.monotonic() - began, random.Random(17)
    met = 0
    for kill in range(MOMENTS):
        process = start(tiny_backbone, path, str(tmp_path / "kept"), tmp_path / "killed")
        time.sleep(moments.uniform(0, seconds * (2 / MOMENTS if kill else 1)))  # 10 short lives are about one
        process.send_signal(number)
        shown, code = process.communicate()[0], process.returncode
        print(f"{kill + 1:2} {number.name} exit {code}: {shown.strip().splitlines()[-1:]}")
        assert code in (0, -number, 128 + number), shown
        met += code != 0
        if code == 0:
            break
    assert met >= 3
    if not (tmp_path / "killed").exists():
        process = start(tiny_backbone, path, str(tmp_path / "kept"), tmp_path / "killed")
        print(process.communicate()[0])
        assert process.returncode == 0
    names = sorted(file.name for file in (tmp_path / "whole").iterdir())
    assert names == ["metrics.csv", "model.safetensors", "val_calib.npy", "val_select.npy"]
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
