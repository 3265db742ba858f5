"""Processes of tests: several that compute together, and which are alive, by a variable that all have inherited."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
MARK = "NATIX_TEST_MARK"
PATIENCE = 600.0  # seconds for what must come; a loaded machine starts a process that imports torch in two minutes


def alive(mark: str) -> list[str]:
    """Command lines of the processes whose environment holds MARK=mark; zombies have none."""
    lines = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                lines.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has ended
            continue
    return lines


def all_gone(mark: str, seconds: float) -> list[str]:
    """Those that are alive after `seconds`; returns as soon as none is."""
    until = time.monotonic() + seconds
    while (left := alive(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def run_together(source: str, folder: Path, processes: int) -> None:
    """Run a script in several processes of one group, started by torchrun; an assert that fails there fails here."""
    script = folder / "together.py"
    script.write_text(source)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(script)], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
