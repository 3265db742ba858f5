"""A bundle as a scoring service, in KServe's V1 protocol.

    GET  /v1/models                {"models": [NAME]}
    GET  /v1/models/NAME           {"name": NAME, "ready": true, "promise": "certified: ..." or "uncertified: ..."}
    POST /v1/models/NAME:predict   {"instances": [{"image": {"b64": "..."}}, ...]} -> {"predictions": [...]}
    GET  /healthz                  {"status": "alive"}
    GET  /metrics                  counters, and drift where the bundle can watch it, as Prometheus reads them

The port opens when the bundle is loaded and has repeated its golden images, so whoever is answered is answered by what
was exported. A prediction is what `natix predict` prints of the image, without the file's name. V1 was chosen because
V2 describes tensors: a client would have to repeat the transform, which is what a bundle is made to prevent.

Predictions belong to instances by their place and V1 has no place for an error among them, so one bad instance fails
its request, with 400 as KServe's own server does; 422 was rejected because clients written for KServe do not expect it.
onnxruntime uses every core for one request, so requests are scored in turns of SLICE images, first come first served,
in a thread that leaves the event loop free for probes: who asks for one image waits for a turn of each of the others
and not for all their images. Memory is bounded by the bodies and one decoded image; a request that finds no place, or
no turn, gets 503 and may go to another replica. Limits are checked between images, because nothing can end a decoder
from outside; when one does not come back, the service says that it is not ready until it does, and in the end that it
is not alive, so that Kubernetes starts another. It is not ready either from when it stops.
Images that were answered are observed by `decisions.drift` in the order of their answers, which depends on no image,
and by the one thread of the event loop. Once its alarm is on, until the process ends, the log says so, and so does the
model's page, under `drift`. Each process watches what it answers itself: of several replicas each has its own level.
The kserve SDK was rejected: it brings FastAPI, gRPC, pandas and a Kubernetes client for the routes above.
"""

import logging
import reprlib
import time
from collections import deque
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import anyio
import anyio.to_thread
from PIL import Image
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from natix_lib.bundle.appearance import APPEARANCE, QUANTILES, Appearance, appearance, quantiles
from natix_lib.bundle.runtime import Bundle, Prediction
from natix_lib.data.decode import decode, sides
from natix_lib.errors import DataError, NatixError
from natix_lib.serving.bodies import Bodies, read_instances
from natix_lib.transform import at_most_shorter_side

MAX_PIXELS = 50_000_000  # of an image, 1 GB while it is decoded; `natix predict` is there for larger ones
MAX_REQUEST_PIXELS = 4 * MAX_PIXELS  # of all images of a request: 64 of 1080p are 133 million
MAX_REQUESTS = 16  # scored, or waiting for a turn with their bodies read
SLICE = 4  # images of a turn, measured to be as fast an image as 16 and faster than 1
SCORING_SECONDS = 30  # of a request's own turns: 64 images of a ViT-B take about that on 2 cores
WAIT_SECONDS = 30  # for a turn; a client's own patience is often 60 s
STALL_SECONDS = 15  # of a turn, after which the service is not ready: 4 images of a ViT-L take less
HOPELESS_SECONDS = 300  # of a turn, after which it is not alive

COUNTERS = {
    "natix_predict_requests_total": "Predict requests.",
    "natix_predict_errors_total": "Predict requests that were not answered with predictions.",
    "natix_predict_seconds_total": "Seconds spent on predict requests, waiting included.",
    "natix_images_total": "Images predicted.",
    "natix_accepted_images_total": "Images predicted and accepted by the policy.",
}
CONNECTIONS = {  # counted where they happen, in what uvicorn calls the state
    "natix_connections_refused_total": "Connections closed because there were too many.",
    "natix_connections_timed_out_total": "Connections closed because headers did not come or answers were not read.",
}

DRIFT = {
    "natix_drift_images": "Images observed by the test for drift.",
    "natix_drift_capital": "Evidence that images differ from those of VAL_CALIB.",
    "natix_drift_capital_of_alarm": "The capital from which on the alarm is on.",
    "natix_drift_alarm": "1 once images differ and the policy's promise no longer applies.",
}
RECENT = 1_000  # images whose looks are shown

log = logging.getLogger("uvicorn.error")


_Scored = tuple[Prediction, dict[str, Any], Appearance]  # the document is made in the thread that scores
_Slice = tuple[list[_Scored], bool]


class ModelName(StringConvertor):
    """A model's name in a path, which ends before `:predict`, so that a GET of `:predict` is known to want POST."""

    regex = "[^/:]+"


register_url_convertor("model", ModelName())


class Service:
    """The endpoints of one bundle under one name."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        """Serve `bundle` as `name`."""
        self._bundle, self._name = bundle, name
        self._counts: dict[str, float] = dict.fromkeys(COUNTERS, 0)
        self._drift = bundle.drift()
        self._looks: deque[Appearance] = deque(maxlen=RECENT)
        self._bodies = Bodies()
        self._places = 0
        self._turn = anyio.Lock()
        self._turn_began: float | None = None

    async def models(self, request: Request) -> Response:
        """The names of what is served."""
        return JSONResponse({"models": [self._name]})

    async def model(self, request: Request) -> Response:
        """Whether the named model is ready, as it is until the service stops unless scoring stalls, and its promise."""
        self._require_name(request)
        ready = self._seconds_of_turn() <= STALL_SECONDS and not request.app.state.stopping
        answer: dict[str, Any] = {"name": self._name, "ready": ready, "promise": self._bundle.promise}
        if self._drift and self._drift.alarm:
            answer["drift"] = self._drift.sentence
        return JSONResponse(answer, 200 if ready else 503)

    async def health(self, request: Request) -> Response:
        """That the event loop turns, and that scoring has not stalled beyond hope."""
        alive = self._seconds_of_turn() <= HOPELESS_SECONDS
        return JSONResponse({"status": "alive" if alive else "stalled"}, 200 if alive else 503)

    async def metrics(self, request: Request) -> Response:
        """The counters since the start."""
        counts = {**dict.fromkeys(CONNECTIONS, 0), **request.scope.get("state", {}), **self._counts}
        lines = [
            f"# HELP {name} {meaning}\n# TYPE {name} counter\n{name} {counts[name]}\n"
            for name, meaning in {**COUNTERS, **CONNECTIONS}.items()
        ]
        return PlainTextResponse("".join([*lines, *self._drift_lines()]), media_type="text/plain; version=0.0.4")

    def _drift_lines(self) -> Iterator[str]:
        drift, reference = self._drift, self._bundle.documents.drift
        if drift is None or reference is None:
            return
        values = (drift.images, drift.capital, 1 / drift.level, int(drift.alarm))
        for (name, meaning), value in zip(DRIFT.items(), values, strict=True):
            yield f"# HELP {name} {meaning}\n# TYPE {name} gauge\n{name} {value}\n"
        looks = {"val_calib": reference["looks"], **({"recent": quantiles(self._looks)} if self._looks else {})}
        for name, meaning in APPEARANCE.items():
            yield f"# HELP natix_drift_{name} Quantiles: {meaning}.\n# TYPE natix_drift_{name} gauge\n"
            for of, values_of in looks.items():
                for quantile, value in zip(QUANTILES, values_of[name], strict=True):
                    yield f'natix_drift_{name}{{of="{of}",quantile="{quantile}"}} {value}\n'

    def _observe(self, scored: list[_Scored]) -> None:
        if self._drift is None:
            return
        was_on = self._drift.alarm
        for prediction, _, looks in scored:
            self._drift.observe(prediction.log_odds, self._bundle.class_names.index(prediction.label))
            self._looks.append(looks)
        if self._drift.alarm and not was_on:
            log.warning("%s", self._drift.sentence)

    async def predict(self, request: Request) -> Response:
        """Predictions of the instances, in order.

        Raises:
            DataError: If the body or an instance breaks a rule; answered with 400.
            HTTPException: 404 for another name, 408 for a body that does not come, 413 for one that is too large or
                has too many pixels, 503 when no place or no turn is free or the request's seconds are used up.
        """
        started = time.perf_counter()
        self._count(requests=1)
        try:
            self._require_name(request)
            async with self._bodies.read(request) as body:
                scored = await self._scored(request, body)
        except Exception:
            self._count(errors=1)
            raise
        finally:
            self._counts["natix_predict_seconds_total"] += time.perf_counter() - started
        self._counts["natix_images_total"] += len(scored)
        self._counts["natix_accepted_images_total"] += sum(prediction.accepted for prediction, _, _ in scored)
        self._observe(scored)
        return JSONResponse({"predictions": [document for _, document, _ in scored]})

    async def _scored(self, request: Request, body: bytearray) -> list[_Scored]:
        if self._places >= MAX_REQUESTS:
            raise HTTPException(503, f"at most {MAX_REQUESTS} requests may wait: try again", {"Retry-After": "1"})
        self._places += 1
        try:
            scored: list[_Scored] = []
            slices = self._slices(body)
            last = False
            while not last:
                part, last = await self._in_turn(request, slices)
                scored += part
            return scored
        finally:
            self._places -= 1

    async def _in_turn(self, request: Request, slices: Iterator[_Slice]) -> _Slice:
        try:
            with anyio.fail_after(WAIT_SECONDS):
                await self._turn.acquire()
        except TimeoutError as error:
            raise HTTPException(503, f"no turn came in {WAIT_SECONDS} s: try again", {"Retry-After": "1"}) from error
        try:
            if await request.is_disconnected():
                raise HTTPException(400, "the client went away")
            self._turn_began = time.monotonic()
            return await anyio.to_thread.run_sync(next, slices)
        finally:
            self._turn_began = None
            self._turn.release()

    def _slices(self, body: bytearray) -> Iterator[_Slice]:
        """Predictions in slices, and whether it is the last; one decoded image is held at a time."""
        files = read_instances(body)
        pixels, seconds = 0, 0.0
        for start in range(0, len(files), SLICE):
            began = time.monotonic()
            images = []
            for i, content in enumerate(files[start : start + SLICE], start):
                if seconds + time.monotonic() - began > SCORING_SECONDS:
                    detail = f"{SCORING_SECONDS} s of scoring were used up by {i} of {len(files)} instances: send fewer"
                    raise HTTPException(503, detail)
                image, image_pixels = self._image(content, f"instances[{i}]")
                pixels += image_pixels
                if pixels > MAX_REQUEST_PIXELS:
                    detail = f"the images must have at most {MAX_REQUEST_PIXELS} pixels together, got {pixels} in"
                    raise HTTPException(413, f"{detail} instances[0] to [{i}]")
                images.append(image)
            predictions = self._bundle.predict(images)
            part = [(each, each.document(), appearance(image)) for each, image in zip(predictions, images, strict=True)]
            seconds += time.monotonic() - began
            yield part, start + SLICE >= len(files)

    def _image(self, content: bytes, place: str) -> tuple[Image.Image, int]:
        """An image at the size that the transform first gives it, and how many pixels its file has."""
        side = self._bundle.transform.resize_shorter_side
        try:
            width, height = sides(content, MAX_PIXELS)
            return at_most_shorter_side(decode(content, MAX_PIXELS, side), side), width * height
        except DataError as error:
            raise DataError(f"{place}: {error}") from error

    def _seconds_of_turn(self) -> float:
        began = self._turn_began
        return 0.0 if began is None else time.monotonic() - began

    def _count(self, **changes: int) -> None:
        for name, change in changes.items():
            self._counts[f"natix_predict_{name}_total"] += change

    def _require_name(self, request: Request) -> None:
        name = request.path_params["name"]
        if name != self._name:
            raise HTTPException(404, f"the model served here is {self._name!r}, got {reprlib.repr(name)}")


def make_app(bundle: Bundle, name: str) -> Starlette:
    """The service as an ASGI application; every error is answered with `{"error": "<one line>"}`.

    Whoever runs it sets `app.state.stopping` when it is not to be sent requests any more.
    """
    service = Service(bundle, name)
    routes = [
        Route("/v1/models", service.models),
        Route("/v1/models/{name:model}:predict", service.predict, methods=["POST"]),
        Route("/v1/models/{name:model}", service.model),
        Route("/healthz", service.health),
        Route("/metrics", service.metrics),
    ]

    async def tell(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return JSONResponse({"error": _detail(request, error)}, error.status_code, error.headers)
        if isinstance(error, DataError):
            return JSONResponse({"error": str(error)}, 400)
        if isinstance(error, NatixError):  # the bundle's fault, not the client's
            log.error("%s", error)
            return JSONResponse({"error": str(error)}, 500)
        return JSONResponse({"error": "the service failed, its log says why"}, 500)

    app = Starlette(routes=routes, exception_handlers=dict.fromkeys((HTTPException, NatixError, Exception), tell))
    app.state.stopping = False
    app.router.redirect_slashes = False  # an address is an address, and a redirect would repeat the client's Host
    return app


def _detail(request: Request, error: HTTPException) -> str:
    path = reprlib.repr(request.url.path)
    if error.detail != HTTPStatus(error.status_code).phrase:  # else it is starlette's own, of a route
        return error.detail
    if error.status_code == 405:
        return f"{path} takes {(error.headers or {})['Allow']}, got {request.method}"
    return f"{error.detail}: {request.method} {path}"
