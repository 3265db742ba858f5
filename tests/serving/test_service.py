"""The scoring service over ASGI, in this process."""

import base64
import io
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from natix_lib.bundle.runtime import Bundle, Prediction
from natix_lib.serving import service
from natix_lib.serving.service import make_app
from tests.damage import changed_bundle
from tests.serving.asking import PREDICT, Message, ask, b64, png, printed, request_of, whole


def test_predictions_are_those_of_the_bundle_in_the_order_of_the_instances(
    client: TestClient, bundle: Bundle, files: list[Path]
) -> None:
    answer = client.post(PREDICT, json=request_of(files))
    assert answer.status_code == 200 and answer.json() == {"predictions": printed(bundle, files)}
    assert len({prediction["score"] for prediction in answer.json()["predictions"]}) == len(files)
    assert {prediction["accepted"] for prediction in answer.json()["predictions"]} == {True, False}


def test_the_short_form_and_wrapped_base64_mean_the_same(client: TestClient, bundle: Bundle, files: list[Path]) -> None:
    content = files[0].read_bytes()
    body = {"signature_name": "x", "instances": [{"b64": b64(content)}, {"b64": base64.encodebytes(content).decode()}]}
    assert client.post(PREDICT, json=body).json()["predictions"] == printed(bundle, files[:1]) * 2


def test_a_prediction_has_its_set_when_the_policy_has_sets(
    soft_bundle: Path, tmp_path: Path, picture: Callable[..., Image.Image]
) -> None:
    copy = changed_bundle(soft_bundle, tmp_path / "b", "scrcparams.json", sets={"score": "lac", "threshold": 1.0})
    with TestClient(make_app(Bundle.load(copy), "natix")) as client:
        (prediction,) = client.post(PREDICT, json={"instances": [{"b64": b64(png(picture()))}]}).json()["predictions"]
    assert prediction["set"] == ["None", "Roadwork"]


def test_models_readiness_and_liveness_are_told_as_kserve_asks(client: TestClient, bundle: Bundle) -> None:
    assert client.get("/v1/models").json() == {"models": ["natix"]}
    answer = client.get("/v1/models/natix").json()
    assert answer == {"name": "natix", "ready": True, "promise": bundle.promise}
    assert answer["promise"].startswith("uncertified: the accept rule carries no guarantee: needs at least 9 groups")
    assert client.get("/healthz").json() == {"status": "alive"}


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/models/other", 404, "the model served here is 'natix', got 'other'"),
        ("POST", "/v1/models/other:predict", 404, "the model served here is 'natix', got 'other'"),
        ("POST", "/v1/models/natix:explain", 404, "Not Found: POST '/v1/models/natix:explain'"),
        ("GET", "/v1/models/", 404, "Not Found: GET '/v1/models/'"),
        ("GET", "/v2/models", 404, "Not Found: GET '/v2/models'"),
    ],
)
def test_another_address_is_refused_with_what_is_here(
    client: TestClient, method: str, path: str, status: int, text: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"error": text})


GOOD = {"b64": b64(png(Image.new("RGB", (8, 8))))}
CASES = {
    "exif_broken.png": 200,
    "exif_broken.webp": 200,
    "exif_rawprofile.png": 200,
    "exif_garbage.jpg": 200,
    "a.jfif": 200,
    "a.avif": 200,
    "int32.tif": 200,
    "float01.tif": 200,
    "float65535.tif": 200,
    "strip_70000x50.png": 400,
    "thin_1x400000.png": 400,
    "many_scans.jpg": 400,
    "ico_bomb.ico": 400,
    "tiff_tile_bomb.tif": 400,
    "icc_huge.png": 400,
    "._x.jpg": 400,
}
MALFORMED = [
    (b"", "the body is not JSON: Expecting value"),
    (b"\xff\xd8\xff", "the body is not JSON: "),
    (b"[" * 100_000, "the body is not JSON: it is nested more than "),
    (b"[]," * 400_000, "the body must have at most 10000 lists, objects and commas, got 800000"),
    (b'{"instances": [NaN]}', "the body is not JSON: "),
    (
        b'{"instances": [], "instances": [1]}',
        "the body is not JSON: it names 'instances' twice",
    ),
    (b'{"instances": [{"b64": "", "b64": "AAAA"}]}', "the body is not JSON: it names 'b64' twice"),
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
    assert answer.json()["error"].startswith("instances[0]: 3600000000 pixels are more than ")


def test_a_request_that_finds_no_place_is_sent_elsewhere_and_the_place_is_given_back(
    app: Starlette, files: list[Path], bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps(request_of(files[:1])).encode()
    go_on = threading.Event()
    predict = bundle.predict

    def late(images: Iterable[Image.Image]) -> list[Prediction]:
        go_on.wait(20)
        return predict(images)

    async def scenario() -> list[int]:
        statuses: list[int] = []

        async def waiting() -> None:
            statuses.append((await ask(app, whole(body)))[0])

        async with anyio.create_task_group() as group:
            for _ in range(service.MAX_REQUESTS):
                group.start_soon(waiting)
            await anyio.sleep(0.05)
            status, answer = await ask(app, whole(body))
            assert answer == {"error": "at most 16 requests may wait: try again"}
            statuses.append(status)
            go_on.set()
        statuses.append((await ask(app, whole(body)))[0])
        return statuses

    monkeypatch.setattr(bundle, "predict", late)
    assert anyio.run(scenario) == [503] + [200] * 17


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", PREDICT, "POST"),
        ("HEAD", PREDICT, "POST"),
        ("DELETE", PREDICT, "POST"),
        ("BREW", PREDICT, "POST"),
        ("POST", "/v1/models/natix", "GET, HEAD"),
        ("PUT", "/healthz", "GET, HEAD"),
    ],
)
def test_another_method_is_refused_with_the_one_that_is_taken(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405 and set(answer.headers["allow"].split(", ")) == set(allowed.split(", "))
    if method != "HEAD":
        assert answer.json()["error"].startswith(f"'{path}' takes ") and answer.json()["error"].endswith(method)


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v1/models/natix", "/metrics"])
def test_head_is_answered_like_get(client: TestClient, path: str) -> None:
    assert client.head(path).status_code == client.get(path).status_code == 200


def test_the_pixels_of_a_request_are_limited_together(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_REQUEST_PIXELS", 5 * 64)
    body = {"instances": [GOOD] * 6}  # 8 x 8 pixels each
    answer = client.post(PREDICT, json=body)
    assert (answer.status_code, answer.json()) == (
        413, {"error": "the images must have at most 320 pixels together, got 384 in instances[0] to [5]"}
    )  # fmt: skip
    assert client.post(PREDICT, json={"instances": [GOOD] * 5}).status_code == 200


def test_the_seconds_of_a_request_are_limited(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SCORING_SECONDS", 0)
    answer = client.post(PREDICT, json={"instances": [GOOD] * 6})
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("0 s of scoring were used up by ")
    assert answer.json()["error"].endswith(" of 6 instances: send fewer")


def test_who_asks_for_one_image_waits_for_a_turn_and_not_for_all_images_of_another(
    app: Starlette, files: list[Path]
) -> None:
    many, one = (json.dumps(request_of(paths)).encode() for paths in (files * 3, files[:1]))

    async def scenario() -> list[int]:
        finished = []

        async def score(body: bytes) -> None:
            status, answer = await ask(app, whole(body))
            assert status == 200
            finished.append(len(answer["predictions"]))

        async with anyio.create_task_group() as group:
            group.start_soon(score, many)
            await anyio.sleep(0.01)
            group.start_soon(score, one)
        return finished

    assert anyio.run(scenario) == [1, 60]


def test_a_stalled_image_makes_the_service_unready_then_not_alive_and_its_end_makes_it_ready_again(
    client: TestClient, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    predict = bundle.predict

    def stalled(images: Iterable[Image.Image]) -> list[Prediction]:
        begun.set()
        go_on.wait(20)
        return predict(images)

    monkeypatch.setattr(bundle, "predict", stalled)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, PREDICT, json={"instances": [GOOD]})
        assert begun.wait(20) and client.get("/v1/models/natix").json()["ready"]
        monkeypatch.setattr(service, "STALL_SECONDS", 0)
        answer = client.get("/v1/models/natix")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert client.get("/healthz").json() == {"status": "alive"}
        monkeypatch.setattr(service, "HOPELESS_SECONDS", 0)
        answer = client.get("/healthz")
        assert (answer.status_code, answer.json()) == (503, {"status": "stalled"})
        monkeypatch.setattr(service, "WAIT_SECONDS", 0.05)
        answer = client.post(PREDICT, json={"instances": [GOOD]})
        assert (answer.status_code, answer.json()) == (503, {"error": "no turn came in 0.05 s: try again"})
        go_on.set()
        assert first.result().status_code == 200
    assert client.get("/v1/models/natix").json()["ready"] and client.get("/healthz").json() == {"status": "alive"}


def test_an_image_whose_exif_is_garbage_is_scored(client: TestClient, picture: Callable[..., Image.Image]) -> None:
    buffer = io.BytesIO()
    picture().save(
        buffer, "JPEG", exif=b"Exif\0\0" + b"II*\0\x08\0\0\0\x01\0\x12\x01\x07\0\xff\xff\xff\xff" + b"\xff" * 8
    )
    assert client.post(PREDICT, json={"instances": [{"b64": b64(buffer.getvalue())}]}).status_code == 200


@pytest.mark.parametrize(("name", "status"), CASES.items())
def test_the_pictures_that_once_broke_the_service_are_scored_or_refused_in_one_line(
    client: TestClient, cases: Path, name: str, status: int
) -> None:
    answer = client.post(PREDICT, json={"instances": [{"b64": b64((cases / "images" / name).read_bytes())}]})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"].startswith("instances[0]: ") and "\n" not in answer.json()["error"]
    assert client.get("/v1/models/natix").json()["ready"]


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
    predict = bundle.predict

    def watched(images: Iterable[Image.Image]) -> list[Prediction]:
        inside.append(1)
        seen.append(len(inside))
        time.sleep(0.005)
        values = predict(images)
        inside.pop()
        return values

    monkeypatch.setattr(bundle, "predict", watched)
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
    accepted = sum(prediction["accepted"] for prediction in printed(bundle, files) + printed(bundle, files[:3]))
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line.split() for line in answer.text.splitlines() if not line.startswith(("#", "natix_drift"))]
    values = dict(lines)
    assert float(values.pop("natix_predict_seconds_total")) > 0
    assert values == {
        "natix_connections_refused_total": "0",
        "natix_connections_timed_out_total": "0",
        "natix_predict_requests_total": "3",
        "natix_predict_errors_total": "1",
        "natix_images_total": str(len(files) + 3),
        "natix_accepted_images_total": str(accepted),
    }
    assert answer.text.count("# TYPE") == 7 + 4 + 3  # of drift and of looks


def test_a_model_that_gives_no_finite_logit_is_the_services_fault(
    app: Starlette, bundle: Bundle, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "transform", type("Blind", (), {
        "resize_shorter_side": 64, "view_count": bundle.transform.view_count,
        "__call__": lambda self, image: Bundle.load(bundle.folder).transform(image) * float("nan"),
    })())  # fmt: skip
    status, answer = anyio.run(ask, app, whole(json.dumps(request_of(files[:1])).encode()))
    assert status == 500 and "the model gives a logit that is not finite for image 0" in answer["error"]
