"""How a service ends while a cluster still sends: processes, signals, and clients that try nothing twice."""

import http.client
import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from natix_lib.bundle.runtime import Bundle
from tests.serving.asking import PREDICT, Message, printed, request_of
from tests.serving.process import Process, served

LAG = (0.1, 0.5)  # seconds after SIGTERM until clients are sent elsewhere
DRAIN = 2


@dataclass
class Cluster:
    """The pods that clients are sent to, what they must answer, and what they did."""

    body: bytes
    expected: Message
    ports: list[int] = field(default_factory=list)
    answered: int = 0
    lost: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def call(self, seed: int) -> None:
        """A client: keeps its connection as long as it may, opens another at times, and sends bodies in parts."""
        draw = random.Random(seed)
        connection: http.client.HTTPConnection | None = None
        while not self.stop.is_set():
            if connection is None or draw.random() < 0.1:
                if connection:
                    connection.close()
                connection = http.client.HTTPConnection("127.0.0.1", draw.choice(self.ports), timeout=20)
            try:
                connection.putrequest("POST", PREDICT)
                connection.putheader("Content-Length", str(len(self.body)))
                connection.endheaders(self.body[:100])
                time.sleep(draw.choice((0, 0, 0.2)))
                connection.send(self.body[100:])
                answer = connection.getresponse()
                document = json.loads(answer.read())
                if (answer.status, document) == (200, self.expected):
                    self.answered += 1
                else:
                    self.lost.append(f"{answer.status} {document}")
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.lost.append(repr(error))
                answer = None
            if answer is None or answer.will_close:
                connection.close()
                connection = None
            time.sleep(draw.uniform(0, 0.3))
        if connection:
            connection.close()

    @contextmanager
    def called(self, clients: int) -> Iterator[None]:
        with ThreadPoolExecutor(clients) as pool:
            calls = [pool.submit(self.call, seed) for seed in range(clients)]
            try:
                yield
            finally:
                self.stop.set()
        for call in calls:
            call.result()

    def end(self, pod: Process, lag: float) -> None:
        """Delete a pod as a cluster does: SIGTERM, and clients are sent elsewhere a while later."""
        pod.popen.send_signal(signal.SIGTERM)
        time.sleep(lag)
        self.ports.remove(pod.port)
        assert pod.popen.wait(60) == 0
        assert "Traceback" not in pod.log.read_text() and self.lost == []


@pytest.mark.parametrize(
    ("ends", "clients"),
    [pytest.param(1, 8, marks=pytest.mark.slow), pytest.param(200, 16, marks=[pytest.mark.slow, pytest.mark.alone])],
)
def test_no_call_is_lost_when_pods_end_while_they_are_still_sent_to(
    soft_bundle: Path, bundle: Bundle, files: list[Path], tmp_path: Path, ends: int, clients: int
) -> None:
    """Up to four rows of pods, in each of which a new pod is ready before the old one ends."""
    rows = min(ends, 4)
    draws = [random.Random(row) for row in range(rows)]
    cluster = Cluster(json.dumps(request_of(files[:1])).encode(), {"predictions": printed(bundle, files[:1])})
    with ExitStack() as stack, ThreadPoolExecutor(rows) as pool:

        def ready(name: str) -> Process:
            pod = stack.enter_context(served(soft_bundle, tmp_path / name, drain=DRAIN))
            cluster.ports.append(pod.port)
            return pod

        def roll(row: int, pod: Process) -> None:
            for number in range(ends // rows):
                old, pod = pod, ready(f"{row}-{number}")
                cluster.end(old, draws[row].uniform(*LAG))

        first = [ready(str(row)) for row in range(rows)]
        with cluster.called(clients):
            rolled = [pool.submit(roll, row, pod) for row, pod in enumerate(first)]
            for each in rolled:
                each.result()
    assert cluster.lost == [] and cluster.answered > 10 * ends


def test_from_sigterm_on_a_pod_is_alive_and_not_ready_and_a_second_signal_ends_it(
    soft_bundle: Path, files: list[Path], tmp_path: Path
) -> None:
    with served(soft_bundle, tmp_path / "log", drain=60) as process:

        def ask(method: str, path: str, body: bytes | None = None) -> tuple[int, str | None, Message]:
            with closing(http.client.HTTPConnection("127.0.0.1", process.port, timeout=20)) as connection:
                connection.request(method, path, body)
                answer = connection.getresponse()
                return answer.status, answer.headers["connection"], json.loads(answer.read())

        status, kept, document = ask("GET", "/v1/models/natix")
        assert (status, kept, document["ready"]) == (200, None, True)
        process.popen.send_signal(signal.SIGTERM)
        until = time.monotonic() + 10
        while (asked := ask("GET", "/v1/models/natix"))[0] != 503:
            assert time.monotonic() < until, asked
        assert asked == (503, "close", {**document, "ready": False})
        assert ask("GET", "/healthz") == (200, "close", {"status": "alive"})
        status, kept, answer = ask("POST", PREDICT, json.dumps(request_of(files[:1])).encode())
        assert (status, kept, len(answer["predictions"])) == (200, "close", 1)
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(5) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_who_waits_at_the_port_when_it_closes_is_answered(soft_bundle: Path, tmp_path: Path) -> None:
    with served(soft_bundle, tmp_path / "log") as process, ExitStack() as stack:
        with closing(http.client.HTTPConnection("127.0.0.1", process.port, timeout=20)) as connection:
            connection.request("GET", "/healthz")  # it has begun
            assert connection.getresponse().status == 200
        process.popen.send_signal(signal.SIGSTOP)
        waiting = [stack.enter_context(process.connect()) for _ in range(100)]
        for client in waiting[:-5]:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        process.popen.send_signal(signal.SIGINT)
        process.popen.send_signal(signal.SIGCONT)
        for client in waiting[-5:]:  # the system has accepted them, and their request is on its way
            time.sleep(0.05)
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in waiting:
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert (answer.status, answer.read()) == (200, b'{"status":"alive"}')
        assert process.popen.wait(10) == 0
