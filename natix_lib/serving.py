"""A bundle as a scoring service, in KServe's V1 protocol.

    GET  /v1/models                {"models": [NAME]}
    GET  /v1/models/NAME           {"name": NAME, "ready": true}
    POST /v1/models/NAME:predict   {"instances": [{"image": {"b64": "..."}}, ...]} -> {"predictions": [...]}
    GET  /healthz                  {"status": "alive"}
    GET  /metrics                  counters, as Prometheus reads them

The port opens when the bundle is loaded and has repeated its golden images, so whoever is answered is answered by what
was exported. A prediction is what `natix predict` prints of the image, without the file's name. V1 was chosen because
V2 describes tensors: a client would have to repeat the transform, which is what a bundle is made to prevent.

Predictions belong to instances by their place and V1 has no place for an error among them, so one bad instance fails
its request, with 400 as KServe's own server does; 422 was rejected because clients written for KServe do not expect it.
onnxruntime uses every core for one request, so requests are decoded and scored one after the other, in a thread that
leaves the event loop free for probes. How many may be open is checked before a body is read, so memory is bounded by
MAX_REQUESTS bodies and one decoded image; a request that finds no place gets 503 and may go to another replica.
The kserve SDK was rejected: it brings FastAPI, gRPC, pandas and a Kubernetes client for the routes above.
"""

import base64
import binascii
import json
import logging
import re
import reprlib
import signal
import socket
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from natix_lib.bundle.runtime import Bundle
from natix_lib.bundle.transform import at_most_shorter_side, upright_rgb
from natix_lib.data.decode import decode
from natix_lib.errors import ConfigError, DataError, NatixError

MAX_BODY = 32 * 2**20  # bytes of a request
MAX_DISCARDED = 4 * MAX_BODY  # of a larger one: most clients read the answer only when they have sent everything
MAX_INSTANCES = 64
MAX_PIXELS = 50_000_000  # of an image, 1 GB while it is decoded; `natix predict` is there for larger ones
MAX_REQUESTS = 16  # read, waiting or scored at a time
BODY_SECONDS = 60  # a body must have come by then
STOP_SECONDS = 25  # for the requests that are open at SIGTERM; a pod has 30

COUNTERS = {
    "natix_predict_requests_total": "Predict requests.",
    "natix_predict_errors_total": "Predict requests that were not answered with predictions.",
    "natix_predict_seconds_total": "Seconds spent on predict requests, waiting included.",
    "natix_images_total": "Images predicted.",
    "natix_accepted_images_total": "Images predicted and accepted by the policy.",
}

log = logging.getLogger("uvicorn.error")


class Service:
    """The endpoints of one bundle under one name."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        """Serve `bundle` as `name`."""
        self._bundle, self._name = bundle, name
        self._counts: dict[str, float] = dict.fromkeys(COUNTERS, 0)
        self._open = 0
        self._one_at_a_time = anyio.CapacityLimiter(1)

    async def models(self, request: Request) -> Response:
        """The names of what is served."""
        return JSONResponse({"models": [self._name]})

    async def model(self, request: Request) -> Response:
        """Whether the named model is ready: always, once the port is open."""
        self._require_name(request)
        return JSONResponse({"name": self._name, "ready": True})

    async def health(self, request: Request) -> Response:
        """That the event loop turns."""
        return JSONResponse({"status": "alive"})

    async def metrics(self, request: Request) -> Response:
        """The counters since the start."""
        lines = [
            f"# HELP {name} {meaning}\n# TYPE {name} counter\n{name} {self._counts[name]}\n"
            for name, meaning in COUNTERS.items()
        ]
        return PlainTextResponse("".join(lines), media_type="text/plain; version=0.0.4")

    async def predict(self, request: Request) -> Response:
        """Predictions of the instances, in order.

        Raises:
            DataError: If the body or an instance breaks a rule; answered with 400.
            HTTPException: 404 for another name, 408 for a body that does not come, 413 for one that is too large, 503
                when MAX_REQUESTS are open.
        """
        started = time.perf_counter()
        self._count(requests=1)
        try:
            self._require_name(request)
            predictions = await self._admitted(request)
        except Exception:
            self._count(errors=1)
            raise
        finally:
            self._counts["natix_predict_seconds_total"] += time.perf_counter() - started
        self._counts["natix_images_total"] += len(predictions)
        self._counts["natix_accepted_images_total"] += sum(found["accepted"] for found in predictions)
        return JSONResponse({"predictions": predictions})

    async def _admitted(self, request: Request) -> list[dict[str, Any]]:
        if self._open >= MAX_REQUESTS:
            raise HTTPException(503, f"at most {MAX_REQUESTS} requests may be open: try again", {"Retry-After": "1"})
        self._open += 1
        try:
            body = await read_body(request)
            return await anyio.to_thread.run_sync(self._score, body, limiter=self._one_at_a_time)
        finally:
            self._open -= 1

    def _score(self, body: bytes) -> list[dict[str, Any]]:
        files = read_instances(body)
        return [found.document() for found in self._bundle.predict(self._images(files))]

    def _images(self, files: list[bytes]) -> Iterator[Image.Image]:
        """Images as small as the transform makes them first, so that a batch holds one decoded image at a time."""
        for i, content in enumerate(files):
            try:
                image = upright_rgb(decode(content, MAX_PIXELS))
            except DataError as error:
                raise DataError(f"instances[{i}]: {error}") from error
            yield at_most_shorter_side(image, self._bundle.transform.resize_shorter_side)

    def _count(self, **changes: int) -> None:
        for name, change in changes.items():
            self._counts[f"natix_predict_{name}_total"] += change

    def _require_name(self, request: Request) -> None:
        name = request.path_params["name"]
        if name != self._name:
            raise HTTPException(404, f"the model served here is {self._name!r}, got {reprlib.repr(name)}")


async def read_body(request: Request) -> bytes:
    """The body of a request, never holding more than MAX_BODY bytes and a part.

    Raises:
        HTTPException: 413 if it is larger, announced or not; 408 if it takes longer than BODY_SECONDS; 400 if the
            client goes away.
    """
    header = request.headers.get("content-length", "")
    announced = int(header) if header.isdecimal() else 0
    close = {"Connection": "close"}  # what is left of the body is not read
    body, size = bytearray(), 0
    try:
        with anyio.fail_after(BODY_SECONDS):
            if announced <= (MAX_BODY if "expect" in request.headers else MAX_DISCARDED):
                async for part in request.stream():
                    size += len(part)
                    if size <= MAX_BODY:
                        body += part
                    elif size > MAX_DISCARDED:
                        break
    except TimeoutError as error:
        raise HTTPException(408, f"the body must come within {BODY_SECONDS} s, got {size} bytes", close) from error
    except ClientDisconnect as error:
        raise HTTPException(400, f"the client went away after {size} bytes", close) from error
    if max(size, announced) > MAX_BODY:
        raise HTTPException(413, f"the body must have at most {MAX_BODY} bytes, got {max(size, announced)}", close)
    return bytes(body)


def read_instances(body: bytes) -> list[bytes]:
    """The image files in the body of a predict request.

    Args:
        body: JSON, `{"instances": [{"image": {"b64": "..."}}, ...]}`, or `{"b64": "..."}` as clients of TensorFlow
            Serving send it; other keys beside `instances` say nothing. Line ends in the base64 are allowed.

    Returns:
        1 to MAX_INSTANCES files, not decoded yet.

    Raises:
        DataError: If it is anything else, naming the instance.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the body must be JSON, got {len(body)} bytes that are not: {error}") from error
    items = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise DataError(f'the body must be {{"instances": [...]}}, got {reprlib.repr(document)}')
    if not 1 <= len(items) <= MAX_INSTANCES:
        raise DataError(f"instances must be 1 to {MAX_INSTANCES}, got {len(items)}")
    return [_file(item, f"instances[{i}]") for i, item in enumerate(items)]


def _file(instance: Any, place: str) -> bytes:
    holder = instance["image"] if isinstance(instance, dict) and instance.keys() == {"image"} else instance
    if not isinstance(holder, dict) or holder.keys() != {"b64"} or not isinstance(holder["b64"], str):
        raise DataError(f'{place} must be {{"image": {{"b64": "<text>"}}}}, got {reprlib.repr(instance)}')
    text = "".join(holder["b64"].split())
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{place}: b64 must be base64, got {reprlib.repr(text)}: {error}") from error


def make_app(bundle: Bundle, name: str) -> Starlette:
    """The service as an ASGI application; every error is answered with `{"error": "<one line>"}`."""
    service = Service(bundle, name)
    routes = [
        Route("/v1/models", service.models),
        Route("/v1/models/{name}:predict", service.predict, methods=["POST"]),
        Route("/v1/models/{name}", service.model),
        Route("/healthz", service.health),
        Route("/metrics", service.metrics),
    ]

    async def tell(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            known = error.detail != HTTPStatus(error.status_code).phrase  # else it is starlette's own, of a route
            detail = error.detail if known else f"{error.detail}: {request.method} {reprlib.repr(request.url.path)}"
            return JSONResponse({"error": detail}, error.status_code, error.headers)
        if isinstance(error, DataError):
            return JSONResponse({"error": str(error)}, 400)
        if isinstance(error, NatixError):  # the bundle's fault, not the client's
            log.error(str(error))
            return JSONResponse({"error": str(error)}, 500)
        return JSONResponse({"error": "the service failed, its log says why"}, 500)

    return Starlette(routes=routes, exception_handlers=dict.fromkeys((HTTPException, NatixError, Exception), tell))


def serve(folder: Path, name: str, host: str, port: int) -> None:
    """Load a bundle and answer until SIGTERM or SIGINT, then finish the open requests and exit with 0.

    Args:
        folder: The bundle.
        name: The model's name in the addresses.
        host: Address to listen on.
        port: 0 takes a free one; the log says which.

    Raises:
        ConfigError: If the name cannot stand in an address, or the port cannot be had.
        ContractError: If the bundle is not whole.
        BundleError: If this machine does not repeat the bundle's golden images.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(f"--name must be letters, digits, '.', '_' and '-', got {name!r}")
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it has stopped
        signal.signal(number, lambda *_: sys.exit(0))
    bundle = Bundle.load(folder)
    config = uvicorn.Config(
        make_app(bundle, name),
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    with _listen(host, port) as listener:
        address, taken = listener.getsockname()[:2]
        log.info("Serving %s from %s on %s port %d", name, folder, address, taken)
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(f"--host {host} --port {port} cannot be listened on: {error.strerror}") from error
