"""`natix serve` as a process of its own, with 300 descriptors."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.serving.asking import PREDICT

HALF = b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"  # of a head


@dataclass
class Process:
    """`natix serve` as a process."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def memory(self, key: str) -> int:
        """A figure of /proc in MB: VmRSS now, VmHWM the most so far."""
        (line,) = re.findall(rf"{key}:\s+(\d+) kB", Path(f"/proc/{self.popen.pid}/status").read_text())
        return int(line) // 1000


@contextmanager
def served(
    bundle: Path | str,
    log: Path,
    code: str = "from natix_lib.cli import main; main()",
    drain: int = 0,
    env: dict[str, str] | None = None,
) -> Iterator[Process]:
    natix = [sys.executable, "-c", code, "serve", "--bundle", str(bundle), "--port", "0", "--drain", str(drain)]
    with log.open("wb") as out:
        popen = subprocess.Popen(
            ["sh", "-c", 'ulimit -n 300; exec "$@"', "sh", *natix], stdout=out, stderr=out, env=env
        )
    with popen, ExitStack() as stack:
        stack.callback(popen.kill)
        until = time.monotonic() + 60
        while not (match := re.search(r"Serving natix from .* on 127.0.0.1 port (\d+)\n", log.read_text())):
            assert popen.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        yield Process(popen, int(match[1]), log)
