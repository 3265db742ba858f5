"""The scoring service: over ASGI in this process, and once as a process of its own on the loopback."""

import base64
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient
from typer.testing import CliRunner

import natix_lib
from natix_lib import serving
from natix_lib.bundle.runtime import Bundle
from natix_lib.cli import app as app_of_commands
from natix_lib.contracts import write_manifest
from natix_lib.data.images import open_image
from natix_lib.errors import ConfigError
from natix_lib.files import read_json, write_json

PREDICT = "/v1/models/natix:predict"
Message = dict[str, Any]


def changed(folder: Path, copy: Path, name: str, **values: object) -> Path:
    """A copy of a bundle whose JSON file `name` has other values."""
    shutil.copytree(folder, copy)
    write_json(copy / name, {**read_json(copy / name), **values})
    write_manifest(copy, "bundle", read_json(copy / "bundle.json"))
    return copy


@pytest.fixture(scope="module")
def soft_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small bundle with a policy that tells images apart: soft probabilities, some rejected."""
    accept = {"score": "log_odds", "score_temperature": 1, "threshold": 5.0, "comparator": ">", "mode": "threshold"}
    folder = tmp_path_factory.mktemp("bundle") / "b"
    return changed(tiny_bundle, folder, "scrcparams.json", temperature=4.0, decision=None, accept=accept)


@pytest.fixture(scope="module")
def bundle(soft_bundle: Path) -> Bundle:
    return Bundle.load(soft_bundle)


@pytest.fixture
def app(bundle: Bundle) -> Starlette:
    return serving.make_app(bundle, "natix")


@pytest.fixture
def address(app: Starlette) -> Iterator[tuple[str, int]]:
    """Where the app listens on the loopback, under uvicorn in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", ws="none", log_config=None))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(app: Starlette) -> Iterator[TestClient]:
    with TestClient(app) as opened:
        yield opened


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """More than one batch: dim noise with more and more orange; turned, transparent, grey, large with a palette."""
    folder = tmp_path_factory.mktemp("files")
    turned = Image.Exif()
    turned[0x0112] = 6
    for i in range(20):
        image = Image.fromarray(np.random.default_rng(i).integers(60, 120, (48, 72, 3), dtype=np.uint8))
        image.paste((240, 120, 20), (8, 8, 8 + 3 * i, 10 + i))
        if i % 5 == 1:
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        elif i % 5 == 2:
            image = image.convert("L")
        elif i % 5 == 3:
            image = image.resize((1080, 720)).quantize()
        image.save(folder / f"{i:02d}.png", **({"exif": turned} if i % 5 == 4 else {}))
    return sorted(folder.glob("*.png"))


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def request_of(files: list[Path]) -> Message:
    return {"instances": [{"image": {"b64": b64(path.read_bytes())}} for path in files]}


def printed(bundle: Bundle, files: list[Path]) -> list[Message]:
    """What the service must answer, written by hand from `Bundle.predict` on the files."""
    return [
        {
            "label": found.label,
            "probabilities": {name: round(value, 6) for name, value in found.probabilities.items()},
            "score": round(found.score, 6),
            "accepted": found.accepted,
        }
        for found in bundle.predict(map(open_image, files))
    ]


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


async def ask(
    app: Starlette,
    receive: Callable[[], Awaitable[Message]],
    path: str = PREDICT,
    headers: dict[str, str] | None = None,
) -> tuple[int, Message]:
    """One POST with no other headers than these, its body in the hands of the test."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": raw, "query_string": b"", "root_path": ""}
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


def whole(body: bytes) -> Callable[[], Awaitable[Message]]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def test_predictions_are_those_of_the_bundle_in_the_order_of_the_instances(
    client: TestClient, bundle: Bundle, files: list[Path]
) -> None:
    answer = client.post(PREDICT, json=request_of(files))
    assert answer.status_code == 200 and answer.json() == {"predictions": printed(bundle, files)}
    assert len({found["score"] for found in answer.json()["predictions"]}) == len(files)
    assert {found["accepted"] for found in answer.json()["predictions"]} == {True, False}


def test_the_short_form_and_wrapped_base64_mean_the_same(client: TestClient, bundle: Bundle, files: list[Path]) -> None:
    content = files[0].read_bytes()
    body = {"signature_name": "x", "instances": [{"b64": b64(content)}, {"b64": base64.encodebytes(content).decode()}]}
    assert client.post(PREDICT, json=body).json()["predictions"] == printed(bundle, files[:1]) * 2


def test_a_prediction_has_its_set_when_the_policy_has_sets(
    soft_bundle: Path, tmp_path: Path, picture: Callable[..., Image.Image]
) -> None:
    copy = changed(soft_bundle, tmp_path / "b", "scrcparams.json", sets={"score": "lac", "threshold": 1.0})
    with TestClient(serving.make_app(Bundle.load(copy), "natix")) as client:
        (found,) = client.post(PREDICT, json={"instances": [{"b64": b64(png(picture()))}]}).json()["predictions"]
    assert found["set"] == ["None", "Roadwork"]


def test_models_readiness_and_liveness_are_told_as_kserve_asks(client: TestClient) -> None:
    assert client.get("/v1/models").json() == {"models": ["natix"]}
    assert client.get("/v1/models/natix").json() == {"name": "natix", "ready": True}
    assert client.get("/healthz").json() == {"status": "alive"}


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/models/other", 404, "the model served here is 'natix', got 'other'"),
        ("POST", "/v1/models/other:predict", 404, "the model served here is 'natix', got 'other'"),
        ("POST", "/v1/models/natix:explain", 405, "Method Not Allowed: POST '/v1/models/natix:explain'"),
        ("GET", "/v2/models", 404, "Not Found: GET '/v2/models'"),
    ],
)
def test_another_address_is_refused_with_what_is_here(
    client: TestClient, method: str, path: str, status: int, text: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"error": text})


GOOD = {"b64": b64(png(Image.new("RGB", (8, 8))))}
MALFORMED = [
    (b"", "the body must be JSON, got 0 bytes that are not: Expecting value"),
    (b"\xff\xd8\xff", "the body must be JSON, got 3 bytes that are not: "),
    (b"[" * 100_000, "the body must be JSON, got 100000 bytes that are not: maximum recursion depth"),
    (b"[1, 2]", 'the body must be {"instances": [...]}, got [1, 2]'),
    ({"inputs": [1]}, "the body must be {\"instances\": [...]}, got {'inputs': [1]}"),
    ({"instances": GOOD}, 'the body must be {"instances": [...]}, got '),
    ({"instances": []}, "instances must be 1 to 64, got 0"),
    ({"instances": [GOOD] * 65}, "instances must be 1 to 64, got 65"),
    ({"instances": [GOOD, 7]}, 'instances[1] must be {"image": {"b64": "<text>"}}, got 7'),
    ({"instances": [{"b64": None}]}, 'instances[0] must be {"image": {"b64": "<text>"}}, got '),
    ({"instances": [{"image": "x"}]}, 'instances[0] must be {"image": {"b64": "<text>"}}, got '),
    ({"instances": [{**GOOD, "url": "x"}]}, 'instances[0] must be {"image": {"b64": "<text>"}}, got '),
    ({"instances": [GOOD, {"image": {"b64": "a-b_"}}]}, "instances[1]: b64 must be base64, got 'a-b_': "),
    (
        {"instances": [{"b64": f"{GOOD['b64'][:8]}*{GOOD['b64'][8:]}"}]},
        "instances[0]: b64 must be base64, got 'iVBORw0",
    ),
    ({"instances": [{"b64": "AAA"}]}, "instances[0]: b64 must be base64, got 'AAA': Incorrect padding"),
    ({"instances": [{"b64": "é"}]}, "instances[0]: b64 must be base64, got 'é': "),
    ({"instances": [{"b64": ""}]}, "instances[0]: the file is empty"),
    ({"instances": [GOOD, GOOD, {"b64": b64(b"hello")}]}, "instances[2]: no image format is known for it"),
    ({"instances": [{"b64": GOOD["b64"][:60]}]}, "instances[0]: cannot be decoded: "),
]


@pytest.mark.parametrize(("body", "text"), MALFORMED, ids=[text[:60] for _, text in MALFORMED])
def test_a_bad_request_is_refused_with_the_instance_the_rule_and_the_value(
    client: TestClient, body: bytes | Message, text: str
) -> None:
    answer = client.post(PREDICT, content=body if isinstance(body, bytes) else json.dumps(body))
    assert answer.status_code == 400 and answer.json().keys() == {"error"}
    assert answer.json()["error"].startswith(text)
    assert len(answer.json()["error"]) < 300 and "\n" not in answer.json()["error"]


def test_a_decompression_bomb_is_refused_before_it_is_decoded(client: TestClient) -> None:
    bomb = bytearray(png(Image.new("1", (8, 8))))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    answer = client.post(PREDICT, json={"instances": [{"b64": b64(bytes(bomb))}]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("instances[0]: 60000 x 60000 pixels are more than ")


@pytest.mark.parametrize(("announced", "expect"), [(32 * 2**20 + 1, True), (128 * 2**20 + 1, False)])
def test_a_body_that_is_announced_too_large_is_not_read(app: Starlette, announced: int, expect: bool) -> None:
    async def receive() -> Message:
        raise AssertionError("the body was read")

    headers = {"content-length": str(announced), **({"expect": "100-continue"} if expect else {})}
    answer = anyio.run(ask, app, receive, PREDICT, headers)
    assert answer == (413, {"error": f"the body must have at most 33554432 bytes, got {announced}"})


def test_a_body_of_the_largest_size_is_read(app: Starlette) -> None:
    status, answer = anyio.run(ask, app, whole(b" " * 32 * 2**20))
    assert status == 400 and answer["error"].startswith("the body must be JSON, got 33554432 bytes")


def test_of_an_endless_body_a_limited_part_is_held_and_a_limited_part_is_read(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MAX_BODY", 2**20)
    monkeypatch.setattr(serving, "MAX_DISCARDED", 4 * 2**20)
    parts = 0

    async def receive() -> Message:
        nonlocal parts
        parts += 1
        return {"type": "http.request", "body": bytes(2**18), "more_body": True}

    tracemalloc.start()
    answer = anyio.run(ask, app, receive)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer == (413, {"error": f"the body must have at most 1048576 bytes, got {4 * 2**20 + 2**18}"})
    assert parts == 17 and held < 2 * 2**20


def test_a_client_that_sends_too_much_before_it_listens_is_told(address: tuple[str, int]) -> None:
    with closing(http.client.HTTPConnection(*address, timeout=20)) as connection:
        connection.request("POST", PREDICT, iter([bytes(2**20)] * 40), encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})  # fmt: skip
        answer = connection.getresponse()
        assert answer.status == 413 and answer.headers["connection"] == "close"
        assert json.loads(answer.read()) == {"error": "the body must have at most 33554432 bytes, got 41943040"}


def test_a_body_that_does_not_come_is_given_up(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "BODY_SECONDS", 0.05)
    status, answer = anyio.run(ask, app, anyio.sleep_forever)
    assert (status, answer) == (408, {"error": "the body must come within 0.05 s, got 0 bytes"})


def test_a_client_that_goes_away_is_an_error_of_one_line(app: Starlette) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    assert anyio.run(ask, app, receive) == (400, {"error": "the client went away after 0 bytes"})


def test_a_request_that_finds_no_place_is_sent_elsewhere_and_the_place_is_given_back(
    app: Starlette, files: list[Path]
) -> None:
    body = json.dumps(request_of(files[:1])).encode()

    async def scenario() -> list[int]:
        found: list[int] = []
        come = anyio.Event()

        async def late() -> Message:
            await come.wait()
            return await whole(body)()

        async def waiting() -> None:
            found.append((await ask(app, late))[0])

        async with anyio.create_task_group() as group:
            for _ in range(serving.MAX_REQUESTS):
                group.start_soon(waiting)
            await anyio.wait_all_tasks_blocked()
            status, answer = await ask(app, whole(body))
            assert answer == {"error": "at most 16 requests may be open: try again"}
            found.append(status)
            come.set()
        found.append((await ask(app, whole(body)))[0])
        return found

    assert anyio.run(scenario) == [503] + [200] * 17


def test_a_probe_is_answered_while_images_are_scored(app: Starlette, files: list[Path]) -> None:
    body = json.dumps(request_of(files * 3)).encode()

    async def scenario() -> list[str]:
        finished = []
        read = anyio.Event()

        async def receive() -> Message:
            read.set()
            return await whole(body)()

        async def score() -> None:
            assert (await ask(app, receive))[0] == 200
            finished.append("predict")

        async with anyio.create_task_group() as group:
            group.start_soon(score)
            await read.wait()
            assert (await ask(app, whole(b""), "/v1/models/other:predict"))[0] == 404
            finished.append("probe")
        return finished

    assert anyio.run(scenario) == ["probe", "predict"]


def test_requests_at_the_same_time_get_the_answers_they_get_alone_and_are_scored_one_by_one(
    client: TestClient, bundle: Bundle, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [client.post(PREDICT, json=request_of([path])).json() for path in files]
    inside: list[int] = []
    seen: list[int] = []
    logits = bundle.logits

    def watched(images: Iterable[Image.Image]) -> NDArray[np.float32]:
        inside.append(1)
        seen.append(len(inside))
        time.sleep(0.005)
        found = logits(images)
        inside.pop()
        return found

    monkeypatch.setattr(bundle, "logits", watched)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda path: client.post(PREDICT, json=request_of([path])).json(), files))
    assert together == alone and all("predictions" in answer for answer in alone)
    assert seen == [1] * len(files)


def test_the_metrics_count_requests_errors_images_and_what_was_accepted(
    client: TestClient, bundle: Bundle, files: list[Path]
) -> None:
    client.post(PREDICT, json=request_of(files))
    client.post(PREDICT, json=request_of(files[:3]))
    client.post(PREDICT, content=b"")
    client.get("/v1/models/natix")
    accepted = sum(found["accepted"] for found in printed(bundle, files) + printed(bundle, files[:3]))
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(line.split() for line in answer.text.splitlines() if not line.startswith("#"))
    assert float(values.pop("natix_predict_seconds_total")) > 0
    assert values == {
        "natix_predict_requests_total": "3",
        "natix_predict_errors_total": "1",
        "natix_images_total": str(len(files) + 3),
        "natix_accepted_images_total": str(accepted),
    }
    assert answer.text.count("# TYPE") == 5


def test_a_model_that_gives_no_finite_logit_is_the_services_fault(
    app: Starlette, bundle: Bundle, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "transform", type("Blind", (), {
        "resize_shorter_side": 64, "view_count": bundle.transform.view_count,
        "__call__": lambda self, image: Bundle.load(bundle.folder).transform(image) * float("nan"),
    })())  # fmt: skip
    status, answer = anyio.run(ask, app, whole(json.dumps(request_of(files[:1])).encode()))
    assert status == 500 and "the model gives a logit that is not finite for image 0" in answer["error"]


SERVE = (
    "import sys; from natix_lib.cli import main\n"
    "try: main()\n"
    "finally: print('HEAVY', sorted({'torch', 'transformers', 'kfp', 'sklearn', 'pandas'} & set(sys.modules)))"
)


def command(*arguments: object, code: str = SERVE) -> list[str]:
    return [sys.executable, "-W", "error", "-c", code, "serve", *map(str, arguments)]


def test_the_service_runs_without_torch_and_finishes_the_open_request_at_sigterm(
    soft_bundle: Path, bundle: Bundle, files: list[Path]
) -> None:
    process = subprocess.Popen(
        command("--bundle", soft_bundle, "--name", "street", "--host", "127.0.0.1", "--port", 0),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    with process, ExitStack() as stack:
        stack.callback(process.kill)
        assert process.stderr
        said = process.stderr.readline()
        port = re.search(r"Serving street from .* on 127.0.0.1 port (\d+)$", said)
        assert port, said
        open_request, probe = (
            stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=20)))
            for _ in range(2)
        )
        body = json.dumps(request_of(files)).encode()
        open_request.putrequest("POST", "/v1/models/street:predict")
        open_request.putheader("Content-Length", str(len(body)))
        open_request.endheaders(body[:1000])
        probe.request("GET", "/v1/models/street")  # when it is answered, the open request has arrived
        assert json.loads(probe.getresponse().read()) == {"name": "street", "ready": True}
        process.send_signal(signal.SIGTERM)
        assert "Started" in process.stderr.readline() and "Shutting down" in process.stderr.readline()
        open_request.send(body[1000:])
        answer = open_request.getresponse()
        assert answer.status == 200 and json.loads(answer.read()) == {"predictions": printed(bundle, files)}
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and "Traceback" not in err and out.splitlines()[-1] == "HEAVY []"
    assert len(re.findall(r'"POST /v1/models/street(?::|%3A)predict HTTP/1.1" 200', out)) == 1
    assert request_of(files[:1])["instances"][0]["image"]["b64"][:40] not in out + err


def test_a_bundle_that_is_not_repeated_and_a_port_that_is_taken_are_one_line_and_exit_code_two(
    soft_bundle: Path, tmp_path: Path
) -> None:
    logits = read_json(soft_bundle / "golden" / "golden.json")["logits"]
    altered = changed(soft_bundle, tmp_path / "b", "golden/golden.json", logits=[[0.5] * len(row) for row in logits])
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
        serving.serve(soft_bundle, "a/b", "127.0.0.1", 0)


def test_without_the_extra_the_command_names_it(soft_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(natix_lib, "serving")
    monkeypatch.delitem(sys.modules, "natix_lib.serving")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(app_of_commands, ["serve", "--bundle", str(soft_bundle)])
    assert str(result.exception) == "serving needs starlette and uvicorn: pip install 'natix[serve]'"
