"""How the tests of serving ask, and what must be answered."""

import base64
import io
import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.applications import Starlette

from natix_lib.bundle.runtime import Bundle
from natix_lib.data.decode import open_image

PREDICT = "/v1/models/natix:predict"
Message = dict[str, Any]


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def request_of(files: list[Path]) -> Message:
    return {"instances": [{"image": {"b64": b64(path.read_bytes())}} for path in files]}


def printed(bundle: Bundle, files: list[Path]) -> list[Message]:
    """What the service must answer, written by hand from `Bundle.predict` on the files."""
    return [
        {
            "label": decision.label,
            "probabilities": {name: round(value, 6) for name, value in decision.probabilities.items()},
            "score": round(decision.score, 6),
            "accepted": decision.accepted,
        }
        for decision in bundle.predict(map(open_image, files))
    ]


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


async def ask(
    app: Starlette,
    receive: Callable[[], Awaitable[Any]],
    path: str = PREDICT,
    headers: dict[str, str] | None = None,
) -> tuple[int, Message]:
    """One POST with no other headers than these, its body in the hands of the test."""
    sent: list[Message] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(dict(message))

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": raw, "query_string": b"", "root_path": ""}
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


def whole(body: bytes) -> Callable[[], Awaitable[Message]]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
