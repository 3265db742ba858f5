"""Which processes of a test are alive, by a variable that they have all inherited."""

import time
from pathlib import Path

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
