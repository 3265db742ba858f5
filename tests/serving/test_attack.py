"""Damaged requests, slow and idle clients against the process, beside a good client that must not notice.

The process may have 300 descriptors. What is damaged is drawn by number: what HTTP, JSON, base64 and image files can
have wrong with them, and random changes of what was right.
"""

import http.client
import io
import json
import random
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natix_lib.serving.connections import WAIT_SECONDS
from tests.serving.asking import PREDICT, b64, png, request_of
from tests.serving.process import HALF, Process, served

SLOW_CLIENTS, IDLE_CLIENTS = 16, 400
LONGEST = 2.0  # seconds that the good client waits for an answer


def post(body: bytes, *headers: str) -> bytes:
    lines = [
        f"POST {PREDICT} HTTP/1.1",
        "Host: x",
        *(headers or (f"Content-Length: {len(body)}",)),
        "Connection: close",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def instances(*contents: bytes) -> bytes:
    return json.dumps({"instances": [{"b64": b64(content)} for content in contents]}).encode()


def bomb(side: int = 60_000) -> bytes:
    content = bytearray(png(Image.new("1", (8, 8))))
    content[16:24] = side.to_bytes(4, "big") * 2  # width and height
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def changed(content: bytes, draw: random.Random) -> bytes:
    """Some bytes changed, a part cut out or repeated."""
    copy = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        copy[draw.randrange(len(copy))] = draw.randrange(256)
    if draw.random() < 0.3:
        start = draw.randrange(len(copy))
        copy[start : start + draw.randint(1, 40)] = copy[:40] if draw.random() < 0.5 else b""
    return bytes(copy)


def pictures() -> list[bytes]:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    contents = []
    for name, settings in (
        ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("BMP", {}),
        ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}), ("ICO", {}), ("TGA", {}), ("JPEG2000", {}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        picture.save(buffer, name, **settings)
        contents.append(buffer.getvalue())
    return contents


GOOD_PICTURES = pictures()
GOOD = instances(GOOD_PICTURES[0])
NUMBERS = [b"NaN", b"1e999", b"-Infinity", b"9" * 9999, b'"\\ud800"']
LENGTHS = ["-1", "0x10", "9" * 30, "1e3", "", "1 2"]
VERSIONS = [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9", b""]
PATHS = [b"*", b"//", b"/%zz%00", b"http://x:y/", b"/" * 9999]
METHODS = [b"GET", b"HEAD", b"CONNECT", b"OPTIONS", b"po st", b"\0"]
DRAWN: list[Callable[[random.Random], bytes]] = [
    lambda draw: post(instances(changed(draw.choice(GOOD_PICTURES), draw))),
    lambda draw: post(instances(*(changed(draw.choice(GOOD_PICTURES), draw) for _ in range(3)))),
    lambda draw: post(instances(draw.choice(GOOD_PICTURES)[: draw.randrange(1, 300)])),
    lambda draw: post(changed(GOOD, draw)),
    lambda draw: changed(post(GOOD), draw),
    lambda draw: changed(post(GOOD)[:150], draw),
    lambda draw: post(instances(*[bomb()] * 64)),
    lambda draw: post(instances(draw.randbytes(draw.randrange(2000)))),
    lambda draw: post(b"[" * draw.randrange(1, 200_000)),
    lambda draw: post(b'{"instances": [' + b"[]," * draw.randrange(1, 400_000) + b"[]]}"),
    lambda draw: post(b'{"instances": [%s]}' % draw.choice(NUMBERS)),
    lambda draw: post(GOOD.replace(b'"b64"', b'"b64": "", "b64"')),
    lambda draw: post(GOOD, f"Content-Length: {len(GOOD) - draw.randrange(1, 99)}"),
    lambda draw: post(GOOD, f"Content-Length: {len(GOOD)}", f"Content-Length: {draw.randrange(999)}"),
    lambda draw: post(GOOD, f"Content-Length: {draw.choice(LENGTHS)}"),
    lambda draw: post(b"%x\r\n" % draw.randrange(2**80) + GOOD, "Transfer-Encoding: chunked"),
    lambda draw: post(b"5\r\n" + GOOD[:5] + b"\r\nzz\r\n", "Transfer-Encoding: chunked"),
    lambda draw: post(b"0\r\n\r\n", "Transfer-Encoding: chunked", f"Content-Length: {draw.randrange(99)}"),
    lambda draw: post(GOOD, f"Content-Length: {len(GOOD)}", "Expect: 100-continue", "Upgrade: h2c"),
    lambda draw: post(GOOD, f"Content-Length: {len(GOOD)}", "X: " + "y" * draw.randrange(2**17)),
    lambda draw: post(GOOD, f"Content-Length: {len(GOOD)}", *["A: b"] * draw.randrange(3000)),
    lambda draw: post(GOOD).replace(b"HTTP/1.1", draw.choice(VERSIONS)),
    lambda draw: post(GOOD).replace(PREDICT.encode(), draw.choice(PATHS)),
    lambda draw: post(GOOD).replace(b"POST", draw.choice(METHODS), 1),
    lambda draw: b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * draw.randrange(1, 50) + b"\0\r\n\r\n",
    lambda draw: draw.randbytes(draw.randrange(1, 3000)) + b"\r\n\r\n",
]  # fmt: skip


def check_answers(sent: bytes, answer: bytes) -> None:
    """Whole answers of HTTP, those of errors with one line of JSON; none at all when the connection was closed."""
    rest = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    while rest:
        head, end, rest = rest.partition(b"\r\n\r\n")
        status, headers = int(head.split(b" ", 2)[1]), head.lower().split(b"\r\n")[1:]
        (length,) = [int(line.split(b":")[1]) for line in headers if line.startswith(b"content-length:")]
        body, rest = (b"", rest) if sent.startswith(b"HEAD") else (rest[:length], rest[length:])
        assert end and (len(body) == length or sent.startswith(b"HEAD")), (sent[:300], head)
        if body and status != 200:
            assert json.loads(body).keys() == {"error"} and b"\n" not in body and len(body) < 1000, (sent[:300], body)


def attack(process: Process, number: int, patience: float) -> None:
    draw = random.Random(number)
    sent = DRAWN[number % len(DRAWN)](draw)
    with process.connect() as client:
        parts = []
        try:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR) if draw.random() < 0.2 else None
            client.settimeout(patience)
            while part := client.recv(2**16):
                parts.append(part)
                client.settimeout(max(patience, LONGEST))  # an answer that has begun must end
        except TimeoutError:
            assert patience < WAIT_SECONDS
        except (ConnectionResetError, BrokenPipeError):
            return  # closed with something unread
    check_answers(sent, b"".join(parts))


def trouble(process: Process, stop: threading.Event) -> None:
    """A slow client: one byte of a body, and again when it is closed."""
    while not stop.is_set():
        with process.connect() as client:
            client.sendall(HALF + b"\r\n{")
            client.settimeout(0.2)
            while not stop.is_set():
                try:
                    if not client.recv(2**16):
                        break
                except TimeoutError:
                    pass
                except ConnectionResetError:
                    break


def be_good(process: Process, body: bytes, stop: threading.Event) -> list[float]:
    """Seconds that a good client waits for each answer on its kept connection."""
    times: list[float] = []
    with closing(http.client.HTTPConnection("127.0.0.1", process.port, timeout=20)) as client:
        while not stop.is_set() or len(times) < 3:
            started = time.monotonic()
            client.request("POST", PREDICT, body)
            answer = client.getresponse()
            assert answer.status == 200 and len(json.loads(answer.read())["predictions"]) == 1
            times.append(time.monotonic() - started)
            time.sleep(0.02)
    return times


@pytest.mark.slow
@pytest.mark.parametrize(("requests", "patience"), [(60, 0.5), pytest.param(1000, 20, marks=pytest.mark.alone)])
def test_a_good_client_is_served_in_two_seconds_beside_slow_idle_and_damaged_ones(
    soft_bundle: Path, files: list[Path], tmp_path: Path, requests: int, patience: float
) -> None:
    stop = threading.Event()
    with served(soft_bundle, tmp_path / "log") as process, ExitStack() as stack:
        before = process.memory("VmRSS")
        pool = stack.enter_context(ThreadPoolExecutor(SLOW_CLIENTS + 4))
        stack.callback(stop.set)
        good = pool.submit(be_good, process, json.dumps(request_of(files[:1])).encode(), stop)
        slow = [pool.submit(trouble, process, stop) for _ in range(SLOW_CLIENTS)]
        idle = [stack.enter_context(process.connect()) for _ in range(IDLE_CLIENTS)]
        for client in idle[::2]:
            with suppress(OSError):
                client.sendall(b"GET / HT")
        list(pool.map(lambda number: attack(process, number, patience), range(requests)))
        with closing(http.client.HTTPConnection("127.0.0.1", process.port, timeout=20)) as late:
            started = time.monotonic()
            late.request("GET", "/v1/models/natix")
            assert json.loads(late.getresponse().read())["ready"] and time.monotonic() - started < LONGEST
        stop.set()
        assert max(good.result()) < LONGEST and not [each.result() for each in slow if each.result()]
        assert process.memory("VmHWM") - before < 1000
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(30) == 0
        log = process.log.read_text()
        assert "Traceback" not in log and len(log) < 300 * (requests + 1000)
