"""`natix serve` beside the bare runtime and beside Python's own HTTP server, on the same images in the same run.

The bare runtime decodes a file and scores it in this process, with no server: what an answer costs at least. The peer
is `http.server` with threads and a lock around the same runtime. Both servers are processes of their own, asked over
kept connections on the loopback, one image a request. One client goes round by round, image by image, through the
runtime and the servers, so that a busy machine slows all of them alike; the goal stands against the runtime's median.
Run: `python -m benchmarks.serving --bundle demo/run/bundle`.
"""

import argparse
import base64
import http.client
import http.server
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from natix_lib.bundle.runtime import Bundle
from natix_lib.data.decode import MAX_PIXELS, decode

SIZES = {"1920 x 1080": (1920, 1080), "512 x 384": (512, 384)}
CLIENTS = 4
GOAL = 1.25  # of the runtime's own time an image, with one client
PATH = "/v1/models/natix:predict"


def draw(size: tuple[int, int], seed: int) -> bytes:
    """A JPEG, quality 90, with structure at several scales, so that its file is as large as a photograph's."""
    generator = np.random.default_rng(seed)
    layers = []
    for cells in (6, 40, 240):
        cells_drawn = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        layers.append(np.asarray(Image.fromarray(cells_drawn).resize(size, Image.Resampling.BICUBIC), dtype=np.float32))
    pixels = np.average(layers, axis=0, weights=(0.6, 0.3, 0.1)) + generator.normal(0, 4, layers[0].shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def score(bundle: Bundle, content: bytes) -> list[dict[str, Any]]:
    """What every server must do for an image."""
    return [prediction.document() for prediction in bundle.predict([decode(content, MAX_PIXELS)])]


def plain_server(folder: str) -> None:
    """The peer: `http.server` around the runtime; prints its port."""
    bundle, lock = Bundle.load(folder), threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                files = [base64.b64decode(each["image"]["b64"]) for each in document["instances"]]
                body = json.dumps({"predictions": [row for content in files for row in score(bundle, content)]})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"port {server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()


@contextmanager
def running(*command: str) -> Iterator[int]:
    """A server in a process of its own; gives its port."""
    process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr
    try:
        line = process.stderr.readline().decode()
        port = re.search(r"port (\d+)$", line.strip())
        assert port, line + process.stderr.read().decode()
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield int(port[1])
    finally:
        process.terminate()
        process.wait()


@contextmanager
def client(port: int) -> Iterator[Callable[[bytes], bytes]]:
    """A function that asks over one kept connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(body: bytes) -> bytes:
        connection.request("POST", PATH, body)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return content

    try:
        yield ask
    finally:
        connection.close()


def timed(call: Callable[[bytes], object], argument: bytes) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    call(argument)
    return time.perf_counter() - started


def many_clients(port: int, bodies: list[bytes], rounds: int) -> tuple[float, list[float]]:
    """Images a second, and the seconds of each answer, of CLIENTS that ask all the time."""

    def one(_: int) -> list[float]:
        with client(port) as ask:
            return [timed(ask, body) for _ in range(rounds) for body in bodies]

    with ThreadPoolExecutor(CLIENTS) as pool:
        started = time.perf_counter()
        times = [seconds for each in pool.map(one, range(CLIENTS)) for seconds in each]
        return len(times) / (time.perf_counter() - started), times


def main() -> None:
    """Print the table; exit with 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True, help="bundle folder")
    parser.add_argument("--rounds", type=int, default=20, help="times that each of 8 images is scored")
    parser.add_argument("--plain-server", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain_server:
        plain_server(arguments.bundle)
        return
    bundle = Bundle.load(Path(arguments.bundle))
    drawn = {label: [draw(size, seed) for seed in range(8)] for label, size in SIZES.items()}
    table = Table("image", "who", "clients", "images/s", "p50 ms", "p99 ms", "x runtime", title=arguments.bundle)
    met = True
    with ExitStack() as stack:
        serve = ("natix_lib.cli", "serve", "--bundle", arguments.bundle, "--port", "0", "--drain", "0")
        ports = {
            "natix serve": stack.enter_context(running(*serve)),
            "http.server": stack.enter_context(
                running("benchmarks.serving", "--plain-server", "--bundle", arguments.bundle)
            ),
        }
        for label, files in drawn.items():
            asks = {name: stack.enter_context(client(port)) for name, port in ports.items()}
            bodies = [
                json.dumps({"instances": [{"image": {"b64": base64.b64encode(content).decode()}}]}).encode()
                for content in files
            ]
            for content, body in zip(files, bodies, strict=True):  # warm, and the same answer from each
                expected = {"predictions": score(bundle, content)}
                assert all(json.loads(ask(body)) == expected for ask in asks.values())
            alone: dict[str, list[float]] = {"runtime": [], **{name: [] for name in ports}}
            for _ in range(arguments.rounds):
                for content, body in zip(files, bodies, strict=True):
                    alone["runtime"].append(timed(lambda content: score(bundle, content), content))
                    for name, ask in asks.items():
                        alone[name].append(timed(ask, body))
            least = float(np.median(alone["runtime"]))
            for name, times in alone.items():
                ratio = float(np.median(times)) / least
                met &= name != "natix serve" or ratio <= GOAL
                p50, p99 = np.percentile(times, (50, 99)) * 1e3
                table.add_row(
                    f"{label}, {np.mean([len(f) for f in files]) / 1e3:.0f} kB", name, "1",
                    f"{len(times) / sum(times):.1f}", f"{p50:.1f}", f"{p99:.1f}", f"{ratio:.2f}",
                )  # fmt: skip
            for name, port in ports.items():
                rate, times = many_clients(port, bodies, max(1, arguments.rounds // CLIENTS))
                p50, p99 = np.percentile(times, (50, 99)) * 1e3
                table.add_row(label, name, str(CLIENTS), f"{rate:.1f}", f"{p50:.1f}", f"{p99:.1f}", "")
            table.add_section()
    Console(width=110).print(table)
    print(f"goal, one client at most {GOAL} x the runtime's median: {'met' if met else 'MISSED'}")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
