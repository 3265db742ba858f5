"""Slow, idle, many and damaged clients beside a good one."""

import http.client
import json
import logging
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from natix_lib.serving import bodies, connections
from tests.serving.asking import PREDICT, request_of
from tests.serving.conftest import Running
from tests.serving.process import HALF

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def rest(client: socket.socket) -> bytes:
    """What a server sends until it closes."""
    parts = []
    try:
        while part := client.recv(2**16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def answered(client: socket.socket) -> tuple[int, dict[str, object]]:
    """The status and the JSON of one answer."""
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer.status, json.loads(answer.read())


def wait_until_closed(running: Running, left: int = 0) -> None:
    until = time.monotonic() + 20
    while len(running.server.server_state.connections) > left:
        assert time.monotonic() < until, "connections stay open"
        time.sleep(0.01)


def test_answers_on_a_kept_connection_do_not_wait_for_the_clients_acknowledgement(running: Running) -> None:
    with running.connect() as client:
        times = []
        for _ in range(30):
            started = time.perf_counter()
            client.sendall(GET)
            while not client.recv(2**16).endswith(b"}"):
                pass
            times.append(time.perf_counter() - started)
        (connection,) = running.server.server_state.connections
        assert connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert statistics.median(times) < 0.02  # 0.04 with the delay


@pytest.mark.parametrize("sent", [b"", b"GET", HALF, GET], ids=["nothing", "a word", "half a head", "a request"])
def test_a_connection_that_brings_no_whole_headers_in_time_is_closed_whatever_drips_in(
    running: Running, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "WAIT_SECONDS", 0.2)
    with running.connect() as client:
        client.sendall(sent)
        for _ in range(20):
            time.sleep(0.03)
            try:
                client.sendall(b"x")
            except OSError:
                break
        else:
            raise AssertionError("what drips in keeps the connection open")
        assert rest(client).count(b"HTTP/1.1 200") in (0, sent == GET)
    wait_until_closed(running)


@pytest.mark.slow
def test_a_request_that_is_at_work_is_not_timed_and_an_idle_connection_may_be_used_again(
    running: Running, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "WAIT_SECONDS", 0.2)
    body = json.dumps(request_of(files[:1])).encode()
    with closing(http.client.HTTPConnection(*running.address, timeout=20)) as client:
        for _ in range(2):
            client.putrequest("POST", PREDICT)
            client.putheader("Content-Length", str(len(body)))
            client.endheaders(body[:-1])
            time.sleep(0.25)  # its body is late, its head was not
            client.send(body[-1:])
            answer = client.getresponse()
            assert answer.status == 200 and len(json.loads(answer.read())["predictions"]) == 1
            time.sleep(0.1)


def test_a_client_that_does_not_read_its_answers_is_closed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "FLUSH_SECONDS", 0.2)
    running.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**12)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
        client.settimeout(20)
        client.connect(running.address)
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
        while not running.server.server_state.connections:
            time.sleep(0.01)
        wait_until_closed(running)


def test_an_answer_that_is_not_read_does_not_keep_a_connection_that_is_closing(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "WAIT_SECONDS", 0.2)
    running.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**12)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
        client.connect(running.address)
        head = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
        client.sendall((head + b"\r\n") * 20 + head + b"Connection: close\r\n\r\n")
        while not running.server.server_state.connections:
            time.sleep(0.01)
        wait_until_closed(running)


def test_idle_connections_make_room_for_new_ones_the_longest_waiting_first(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 8)
    with ExitStack() as stack:
        idle = []
        for _ in range(20):
            idle.append(stack.enter_context(running.connect()))
            idle[-1].sendall(b"GET / HT")
        good = stack.enter_context(running.connect())
        started = time.monotonic()
        good.sendall(GET)
        assert answered(good) == (200, {"status": "alive"}) and time.monotonic() - started < 2
        wait_until_closed(running, 8)
        for client in idle[:13]:
            assert rest(client) == b""
        for client in [*idle[13:], good]:
            client.sendall(b"TP/1.1\r\nHost: x\r\n\r\n" if client is not good else GET)
            assert answered(client)[0] == (404 if client is not good else 200)


def test_a_connection_that_was_answered_outlives_newer_ones_that_never_were(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 8)
    with ExitStack() as stack:
        good = stack.enter_context(running.connect())
        good.sendall(GET)
        assert answered(good)[0] == 200
        for _ in range(20):
            stack.enter_context(running.connect())
        wait_until_closed(running, 8)
        good.sendall(GET)
        assert answered(good)[0] == 200


def test_a_newcomer_is_told_when_every_connection_is_at_work(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 3)
    with ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(running.connect())
            client.sendall(HALF + b"\r\n{")
        held = running.server.server_state.connections
        while sum(isinstance(each, connections.Connection) and each.waits_since is None for each in held) < 3:
            time.sleep(0.01)
        late = stack.enter_context(running.connect())
        assert answered(late) == (503, {"error": "too many connections are open: try again"})


def test_slow_bodies_beside_a_good_client_cost_it_nothing_and_are_given_up(
    running: Running, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PACE_SECONDS", 0.5)
    with ExitStack() as stack:
        slow = [stack.enter_context(running.connect()) for _ in range(40)]
        for client in slow:
            client.sendall(HALF + b"\r\n{")
        good = stack.enter_context(closing(http.client.HTTPConnection(*running.address, timeout=20)))
        started = time.monotonic()
        good.request("POST", PREDICT, json.dumps(request_of(files[:1])))
        answer = good.getresponse()
        assert answer.status == 200 and len(json.loads(answer.read())["predictions"]) == 1
        assert time.monotonic() - started < 2
        for client in slow:
            assert answered(client)[0] == 408


DAMAGED = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    (HALF.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked") + b"\r\nzz\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 2**17, 431),
    (b"GET http://x/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    (b"GET /%zz%00%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
]


@pytest.mark.parametrize(("request_", "status"), DAMAGED, ids=[repr(sent[:40]) for sent, _ in DAMAGED])
def test_a_damaged_request_is_answered_with_one_line_of_json_and_logs_no_traceback(
    running: Running, request_: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with running.connect() as client:
        client.sendall(request_)
        answer = rest(client)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status and b"content-type: application/json" in head
    assert status == 200 or (json.loads(body).keys() == {"error"} and b"\n" not in body and len(body) < 400)
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


@pytest.mark.parametrize("head", [GET.replace(b"Host: x", b"Host: x\r\nHost: y"), HALF + b"Content-Length: 1\r\n\r\n"])
def test_a_client_that_is_refused_and_sends_on_gets_its_whole_answer_and_no_reset(
    running: Running, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.5)
    with running.connect() as client:
        client.sendall(head)
        first = client.recv(1, socket.MSG_PEEK)
        for _ in range(10):
            client.sendall(bytes(2**16))  # without the linger a reset comes at the first, an error at the second
        assert first == b"H" and answered(client)[0] == 400
        assert client.recv(1) == b""
        time.sleep(0.6)
        with pytest.raises(OSError):
            for _ in range(10):
                client.sendall(b"x")
                time.sleep(0.02)
    wait_until_closed(running)


def test_who_lingers_makes_room_first(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINGER_SECONDS", 60)
    monkeypatch.setattr(connections, "most_connections", lambda: 2)
    with running.connect() as idle, running.connect() as refused, ExitStack() as stack:
        idle.sendall(b"GET / HT")
        refused.sendall(b"\0\r\n\r\n")
        assert answered(refused)[0] == 400
        late = stack.enter_context(running.connect())
        late.sendall(GET)
        assert answered(late)[0] == 200
        idle.sendall(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert answered(idle)[0] == 404


def test_a_warning_is_logged_once_in_a_while_with_the_count_of_those_like_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("natix.sparse")
    logger.addFilter(sparse := connections.Sparse())
    for i in range(50):
        logger.warning("client %d is damaged", i)
    logger.warning("something else")
    monkeypatch.setattr(connections, "LOG_SECONDS", 0)
    logger.warning("client %d is damaged", 50)
    logger.removeFilter(sparse)
    assert [record.getMessage() for record in caplog.records] == [
        "client 0 is damaged", "something else", "client 50 is damaged (49 more like it were not logged)"
    ]  # fmt: skip


def test_connections_stay_below_the_limit_of_descriptors_which_is_raised_as_far_as_needed() -> None:
    code = """if True:
        import resource
        from natix_lib.serving.connections import most_connections
        for limits in (2000, 4096), (300, 4096), (300, 300), (100, 100):
            most_connections.cache_clear()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            try:
                print(most_connections(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            except Exception as error:
                print(type(error).__name__, error)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "512 2000", "512 640", "172 300",
        "ConfigError serving needs more than 128 file descriptors, got 100: see ulimit -n",
    ]  # fmt: skip


def test_a_client_that_sends_too_much_before_it_listens_is_told(running: Running) -> None:
    with closing(http.client.HTTPConnection(*running.address, timeout=20)) as connection:
        connection.request("POST", PREDICT, iter([bytes(2**20)] * 40), encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})  # fmt: skip
        answer = connection.getresponse()
        assert answer.status == 413 and answer.headers["connection"] == "close"
        assert json.loads(answer.read()) == {"error": "the body must have at most 33554432 bytes, got 41943040"}
