"""The service as a process: its start, its end."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

import natix_lib
from natix_lib import serving
from natix_lib.bundle.runtime import Bundle
from natix_lib.cli import app as app_of_commands
from natix_lib.errors import ConfigError
from natix_lib.files import read_json
from tests.damage import changed_bundle
from tests.serving.asking import printed, request_of
from tests.serving.process import HALF, served

SERVE = (
    "import sys; from natix_lib.cli import main\n"
    "try: main()\n"
    "finally: print('HEAVY', sorted({'torch', 'transformers', 'kfp', 'sklearn', 'pandas'} & set(sys.modules)))"
)


def command(*arguments: object, code: str = SERVE) -> list[str]:
    return [sys.executable, "-W", "error", "-c", code, "serve", *map(str, arguments)]


@pytest.mark.slow
def test_the_service_runs_without_torch_and_finishes_the_open_request_at_sigterm(
    soft_bundle: Path, bundle: Bundle, files: list[Path]
) -> None:
    process = subprocess.Popen(
        command("--bundle", soft_bundle, "--name", "street", "--host", "127.0.0.1", "--port", 0, "--drain", 0),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    with process, ExitStack() as stack:
        stack.callback(process.kill)
        assert process.stderr
        line = process.stderr.readline()
        port = re.search(r"Serving street from .* on 127.0.0.1 port (\d+)$", line)
        assert port, line
        assert "The policy of street is uncertified: the accept rule carries no" in process.stderr.readline()
        open_request, probe = (
            stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=20)))
            for _ in range(2)
        )
        body = json.dumps(request_of(files)).encode()
        open_request.putrequest("POST", "/v1/models/street:predict")
        open_request.putheader("Content-Length", str(len(body)))
        open_request.endheaders(body[:1000])
        probe.request("GET", "/v1/models/street")  # when it is answered, the open request has arrived
        assert json.loads(probe.getresponse().read()).items() >= {"name": "street", "ready": True}.items()
        half = stack.enter_context(socket.create_connection(("127.0.0.1", int(port[1])), timeout=20))
        half.sendall(b"POST / HT")
        process.send_signal(signal.SIGTERM)
        log = [process.stderr.readline() for _ in range(3)]
        assert all(text in line for text, line in zip(("Started", "Not ready", "Shutting down"), log, strict=True))
        open_request.send(body[1000:])
        answer = open_request.getresponse()
        assert answer.status == 200 and json.loads(answer.read()) == {"predictions": printed(bundle, files)}
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and "Traceback" not in err and out.splitlines()[-1] == "HEAVY []"
    assert len(re.findall(r'"POST /v1/models/street(?::|%3A)predict HTTP/1.1" 200', out)) == 1
    assert request_of(files[:1])["instances"][0]["image"]["b64"][:40] not in out + err


@pytest.mark.slow
@pytest.mark.alone
def test_sigterm_ends_the_process_in_thirty_seconds_whatever_its_clients_do(
    soft_bundle: Path, files: list[Path], tmp_path: Path
) -> None:
    body = json.dumps(request_of(files * 3)).encode()
    with served(soft_bundle, tmp_path / "log", drain=10) as process, ExitStack() as stack:
        connect = lambda: stack.enter_context(process.connect())  # noqa: E731
        slow, half, kept, scored = ([connect() for _ in range(20)] for _ in range(4))
        for client in half:
            client.sendall(HALF)
        for client in slow:
            client.sendall(HALF + b"\r\n{")
        for client in kept:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)  # and reads nothing
        for client in scored[:8]:
            head = HALF.replace(b"100", str(len(body)).encode())
            client.sendall(head + b"\r\n" + body)
        time.sleep(1)
        started = time.monotonic()
        process.popen.send_signal(signal.SIGTERM)
        statuses = []
        for client in scored[:8]:
            answer = http.client.HTTPResponse(client)
            answer.begin()
            statuses.append(answer.status)
        assert process.popen.wait(30) == 0 and time.monotonic() - started < 30
        assert statuses == [200] * 8 and "Traceback" not in process.log.read_text()


@pytest.mark.slow
@pytest.mark.alone
def test_an_image_that_is_still_decoded_when_the_time_is_over_ends_with_the_process(
    soft_bundle: Path, files: list[Path], tmp_path: Path
) -> None:
    code = (
        "import time; from natix_lib import cli; from natix_lib.serving import server, service;"
        "server.STOP_SECONDS = -1; service.decode = lambda *_: print('decoding', flush=True) or time.sleep(600);"
        "cli.main()"
    )
    body = json.dumps(request_of(files[:1])).encode()
    with served(soft_bundle, tmp_path / "log", code) as process, process.connect() as client:
        client.sendall(HALF.replace(b"100", str(len(body)).encode()) + b"\r\n" + body)
        until = time.monotonic() + 60
        while "decoding" not in process.log.read_text():
            assert time.monotonic() < until, process.log.read_text()
            time.sleep(0.02)
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(30) == 1


def test_a_bundle_that_is_not_repeated_and_a_port_that_is_taken_are_one_line_and_exit_code_two(
    soft_bundle: Path, tmp_path: Path
) -> None:
    logits = read_json(soft_bundle / "golden" / "golden.json")["logits"]
    altered = changed_bundle(
        soft_bundle, tmp_path / "b", "golden/golden.json", logits=[[0.5] * len(row) for row in logits]
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        here = ("--host", "127.0.0.1", "--port", taken.getsockname()[1])
        cases = {
            altered: f"bundle {altered}: golden images give logits that differ by ",
            soft_bundle: f"{' '.join(map(str, here))} cannot be listened on: Address already in use",
        }
        commands = [command("--bundle", folder, *here) for folder in cases]
        started = [subprocess.Popen(one, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for one in commands]
        for process, text in zip(started, cases.values(), strict=True):
            _, err = process.communicate(timeout=60)
            assert process.returncode == 2 and len(err.splitlines()) == 1, err
            assert err.startswith(f"error: {text}")


def test_a_name_that_cannot_stand_in_an_address_is_refused(soft_bundle: Path) -> None:
    with pytest.raises(ConfigError, match=r"--name must be letters, digits, '\.', '_' and '-', got 'a/b'"):
        serving.serve(str(soft_bundle), "a/b", "127.0.0.1", 0, 0)


def test_without_the_extra_the_command_names_it(soft_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(natix_lib, "serving")
    for name in [name for name in sys.modules if name.startswith("natix_lib.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(app_of_commands, ["serve", "--bundle", str(soft_bundle)])
    assert str(result.exception) == "the package uvicorn is missing here: pip install 'natix[serve]'"
