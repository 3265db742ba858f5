"""What a predict request brings: its body, read within bounds, and the image files in it.

A slow client costs others nothing. Reading a body takes no place among the requests that are scored; a body must come
at a pace, so that one that stands still is given up in seconds; and the bytes of all bodies together are bounded: when
they are too many, the largest of those that are still coming goes, so that a client with an ordinary photograph is
served beside clients that hold back almost whole bodies. Refusing the newcomer was rejected because it would be that
client.
"""

import base64
import binascii
import reprlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from natix_lib.errors import ContractError, DataError
from natix_lib.files import parse_json

MAX_BODY = 32 * 2**20  # bytes of a request
MAX_DISCARDED = 4 * MAX_BODY  # of a larger one: most clients read the answer only when they have sent everything
MAX_HELD = 8 * MAX_BODY  # of all bodies that are read, waiting or scored
PACE_BYTES, PACE_SECONDS = 2**18, 5  # the next part of this size, or the end, must come in this time: 52 kB/s
BODY_SECONDS = 60  # for a whole body at any pace: the largest one at 4.5 Mbit/s
MAX_INSTANCES = 64
MAX_MARKS = 10_000  # '[', '{' and ',' of a body, 3 an instance: JSON of 32 MB in small lists is 1 GB of objects
COUNTED_BODY = 2**20  # bytes, below which they are not counted: 30 MB of objects

CLOSE = {"Connection": "close"}  # what is left of the body is not read


@dataclass(eq=False)
class _Body:
    """A body that is coming; `dropped` when its bytes were needed for others."""

    content: bytearray = field(default_factory=bytearray)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    dropped: bool = False


class Bodies:
    """The bodies of a service, bounded together."""

    def __init__(self) -> None:
        """Hold none."""
        self._held = 0
        self._coming: set[_Body] = set()

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
        """The body of a request, at most MAX_BODY bytes, which count as held until the block ends.

        Raises:
            HTTPException: 413 if it is larger, announced or not; 408 if it comes too slowly; 503 if it is the largest
                when all bodies together are more than MAX_HELD; 400 if the client goes away.
        """
        body = _Body()
        try:
            await self._receive(request, body)
            yield body.content
        finally:
            self._release(body)

    async def _receive(self, request: Request, body: _Body) -> None:
        header = request.headers.get("content-length", "")
        announced = int(header) if header.isdecimal() else 0
        size, due = 0, PACE_BYTES
        started = anyio.current_time()
        body.scope.deadline = started + PACE_SECONDS
        self._coming.add(body)
        try:
            with body.scope:
                if announced <= (MAX_BODY if "expect" in request.headers else MAX_DISCARDED):
                    async for part in request.stream():
                        size += len(part)
                        if size >= due:
                            body.scope.deadline = min(started + BODY_SECONDS, anyio.current_time() + PACE_SECONDS)
                            due = size + PACE_BYTES
                        if size > MAX_DISCARDED:
                            break
                        self._keep(body, part) if size <= MAX_BODY else self._release(body)
        except ClientDisconnect as error:
            raise HTTPException(400, f"the client went away after {size} bytes", CLOSE) from error
        finally:
            self._coming.discard(body)
        if max(size, announced) > MAX_BODY:
            raise HTTPException(413, f"the body must have at most {MAX_BODY} bytes, got {max(size, announced)}", CLOSE)
        if body.dropped:
            detail = f"bodies of more than {MAX_HELD} bytes are held, this one has {size} of them: try again"
            raise HTTPException(503, detail, {**CLOSE, "Retry-After": "1"})
        if body.scope.cancelled_caught:
            pace = f"{PACE_BYTES} bytes each {PACE_SECONDS} s and whole within {BODY_SECONDS} s"
            raise HTTPException(408, f"the body must come with {pace}, got {size} bytes", CLOSE)

    def _keep(self, body: _Body, part: bytes) -> None:
        body.content += part
        self._held += len(part)
        while self._held > MAX_HELD and self._coming:
            largest = max(self._coming, key=lambda each: len(each.content))
            self._coming.remove(largest)
            self._release(largest)
            largest.dropped = True
            largest.scope.cancel()

    def _release(self, body: _Body) -> None:
        self._held -= len(body.content)
        body.content = bytearray()


def read_instances(body: bytes | bytearray) -> list[bytes]:
    """The image files in the body of a predict request.

    Args:
        body: JSON, `{"instances": [{"image": {"b64": "..."}}, ...]}`, or `{"b64": "..."}` as clients of TensorFlow
            Serving send it; other keys beside `instances` say nothing. Line ends in the base64 are allowed.

    Returns:
        1 to MAX_INSTANCES files, not decoded yet.

    Raises:
        DataError: If it is anything else, naming the instance.
    """
    marks = sum(body.count(mark) for mark in b"[{,") if len(body) > COUNTED_BODY else 0
    if marks > MAX_MARKS:
        raise DataError(f"the body must have at most {MAX_MARKS} lists, objects and commas, got {marks}")
    try:
        document = parse_json(body, "the body")
    except ContractError as error:
        raise DataError(str(error)) from error
    instances = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(instances, list):
        raise DataError(f'the body must be {{"instances": [...]}}, got {reprlib.repr(document)}')
    if not 1 <= len(instances) <= MAX_INSTANCES:
        raise DataError(f"instances must be 1 to {MAX_INSTANCES}, got {len(instances)}")
    return [_file(instance, f"instances[{i}]") for i, instance in enumerate(instances)]


def _file(instance: Any, place: str) -> bytes:
    holder = instance["image"] if isinstance(instance, dict) and instance.keys() == {"image"} else instance
    if not isinstance(holder, dict) or holder.keys() != {"b64"} or not isinstance(holder["b64"], str):
        raise DataError(f'{place} must be {{"image": {{"b64": "<text>"}}}}, got {reprlib.repr(instance)}')
    text: str = holder["b64"]
    if any(space in text for space in "\r\n\t "):
        text = "".join(text.split())
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{place}: b64 must be base64, got {reprlib.repr(text)}: {error}") from error
