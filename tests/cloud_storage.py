"""Cloud Storage on the loopback: the emulator of PyPI behind a front that adds what it lacks.

The front enforces `ifGenerationMatch=0` and the `generation` of a read, which the emulator ignores, under a lock. As a
test asks, it holds an upload up, and lets all else go wrong that `tests/front.py` can.
"""

import json
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gcp_storage_emulator.server import create_server

from tests.front import Store, fronting

BUCKET = "street"
READ = re.compile(rf"/download/storage/v1/b/{BUCKET}/o/([^?]+)\?(.*)")


@dataclass
class Cloud(Store):
    """Cloud Storage, past the front by google-cloud-storage."""

    held_up: str = ""  # the object whose upload waits until `released`
    waiting: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def wipe(self) -> None:
        """Remove all objects, keep the bucket; nothing goes wrong any more."""
        self.calm()
        self.held_up = ""
        self.waiting.clear()
        self.released.clear()
        urllib.request.urlopen(f"{self.emulator}/wipe?keep-buckets=True").close()

    def known(self, name: str) -> dict[str, Any] | None:
        """What the emulator knows of an object; None when there is none."""
        try:
            address = f"{self.emulator}/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(name, safe='')}"
            with urllib.request.urlopen(address) as reply:
                known: dict[str, Any] = json.load(reply)
                return known
        except urllib.error.HTTPError as error:
            error.close()
            return None

    def holds(self, name: str) -> bool:
        """Whether an object exists."""
        return self.known(name) is not None

    @property
    def bucket(self) -> Any:
        """The bucket, by google-cloud-storage, past the front."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        options = {"api_endpoint": self.emulator}
        return storage.Client("emulated", AnonymousCredentials(), client_options=options).bucket(BUCKET)

    def put(self, files: dict[str, bytes]) -> None:
        """Write objects, by name."""
        bucket = self.bucket
        for name, content in files.items():
            bucket.blob(name).upload_from_string(content)

    def remove(self, name: str) -> None:
        """Remove an object."""
        self.bucket.blob(name).delete()

    def is_read(self, path: str) -> str:
        match = READ.fullmatch(path)
        return urllib.parse.unquote(match[1]) if match else ""

    def is_list(self, path: str) -> bool:
        return path.startswith(f"/storage/v1/b/{BUCKET}/o?")

    def drops(self, method: str, path: str, body: bytes) -> bool:
        held_up = bool(self.held_up) and _uploaded(method, path, body) == self.held_up
        if held_up:
            self.waiting.set()
            self.released.wait(60)
        return held_up

    def intercepts(self, method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        uploaded = _uploaded(method, path, body)
        if uploaded and "ifGenerationMatch=0" in path and self.holds(uploaded):
            return 412, b'{"error": {"code": 412, "message": "conditionNotMet"}}'
        match = READ.fullmatch(path)
        generation = urllib.parse.parse_qs(match[2]).get("generation") if match else None
        if generation and (self.known(self.is_read(path)) or {}).get("generation") != generation[0]:
            return 404, b"No such object"
        return None


@contextmanager
def cloud_storage() -> Iterator[Cloud]:
    """Start the emulator and its front, stop both at the end."""
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    host, port = server._api._httpd.server_address[:2]
    cloud = Cloud(f"http://{host}:{port}")
    try:
        with fronting(cloud):
            yield cloud
    finally:
        server.stop()


def _uploaded(method: str, path: str, body: bytes) -> str:
    """Name of the object that a request uploads; "" for another request."""
    address = urllib.parse.urlsplit(path)
    if method != "POST" or not address.path.startswith("/upload/"):
        return ""
    query = urllib.parse.parse_qs(address.query)
    if "name" in query:
        return query["name"][0]
    match = re.search(rb'"name": ("(?:[^"\\]|\\.)*")', body)
    return str(json.loads(match.group(1))) if match else ""
