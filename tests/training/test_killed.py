"""train is killed at random moments, and what goes on gives the bytes of what was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.killed import CHANGES

MOMENTS = 10


def start(backbone: Path, path: str, root: str, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.training.killed", str(backbone), path, root, str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout and process.stdout.readline() == "begun\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("path", CHANGES)
def test_ten_kills_at_random_moments_change_no_byte(
    tiny_backbone: Path, tmp_path: Path, path: str, number: signal.Signals
) -> None:
    names = ["metrics.csv", "model.safetensors", "val_calib.npy", "val_select.npy"]

    def end(process: subprocess.Popen[str], out: Path) -> bytes:
        print(process.communicate()[0])
        assert process.returncode == 0
        assert sorted(file.name for file in out.iterdir()) == names
        return b"".join((out / name).read_bytes() for name in names)

    process, began = start(tiny_backbone, path, "", tmp_path / "whole"), time.monotonic()
    whole = end(process, tmp_path / "whole")
    seconds, moments = time.monotonic() - began, random.Random(17)
    root, kill, told, gone_on = tmp_path / "kept", 0, 0, 0

    def met() -> bool:  # each part of a training; heads of a grid begin anew
        return "grid" in path or (gone_on >= 2 and (told >= 2 or number == signal.SIGKILL))

    while kill < MOMENTS or (not met() and kill < 3 * MOMENTS):  # on a busy machine it may begin late
        out = tmp_path / f"killed {kill}"
        process = start(tiny_backbone, path, str(root), out)
        time.sleep(moments.uniform(0, 0.8 * seconds))
        process.send_signal(number)
        shown = process.communicate()[0]
        print(f"{kill + 1:2} {number.name} exit {process.returncode}\n{shown}")
        gone_on, told = gone_on + ("going on from" in shown), told + (process.returncode == 128 + number)
        assert process.returncode in (0, -number, 128 + number)
        if out.exists():  # it was faster: the next one begins anew
            assert b"".join((out / name).read_bytes() for name in names) == whole
            root = tmp_path / f"kept after {kill}"
        kill += 1
    assert met()
    assert end(start(tiny_backbone, path, str(root), tmp_path / "last"), tmp_path / "last") == whole
