"""Cloud Storage on the loopback: the emulator of PyPI behind a front that adds what it lacks.

The front enforces `ifGenerationMatch=0`, which the emulator ignores, under a lock. As a test asks, it answers 503,
changes answers on their way, and holds an upload up.
"""

import json
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gcp_storage_emulator.server import create_server

from tests.loopback import Handler, serving

BUCKET = "street"
PASSED_ON = ("Content-Type", "X-Goog-Hash", "Location", "Range", "ETag")

# Gives the body of an answer for the request's path, the body and the headers, which it may change.
Edit = Callable[[str, bytes, dict[str, str]], bytes]


@dataclass
class Cloud:
    """Where it listens, how many of the next requests fail with 503, and what else goes wrong."""

    emulator: str
    url: str = ""
    failures: int = 0
    edit: Edit | None = None
    held_up: str = ""  # the object whose upload waits until `released`
    waiting: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wipe(self) -> None:
        """Remove all objects, keep the bucket; nothing goes wrong any more."""
        self.failures, self.edit, self.held_up = 0, None, ""
        self.waiting.clear()
        self.released.clear()
        urllib.request.urlopen(f"{self.emulator}/wipe?keep-buckets=True").close()

    def holds(self, name: str) -> bool:
        """Whether an object exists."""
        try:
            urllib.request.urlopen(f"{self.emulator}/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(name, safe='')}")
            return True
        except urllib.error.HTTPError as error:
            error.close()
            return False

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


@contextmanager
def cloud_storage() -> Iterator[Cloud]:
    """Start the emulator and its front, stop both at the end."""
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    host, port = server._api._httpd.server_address[:2]
    cloud = Cloud(f"http://{host}:{port}")

    class Front(Handler):
        def forward(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:  # its sender was killed; the emulator would wait for the rest for ever
                return None
            if cloud.failures:
                cloud.failures -= 1
                return self.answer(503, b"")
            uploaded = _uploaded(self.command, self.path, body)
            if cloud.held_up and uploaded == cloud.held_up:
                cloud.waiting.set()
                cloud.released.wait(60)
                return None
            with cloud.lock:
                if uploaded and "ifGenerationMatch=0" in self.path and cloud.holds(uploaded):
                    return self.answer(412, b'{"error": {"code": 412, "message": "conditionNotMet"}}')
                kept = {name: value for name, value in self.headers.items() if name not in ("Host", "Connection")}
                request = urllib.request.Request(cloud.emulator + self.path, body or None, kept, method=self.command)
                try:
                    with urllib.request.urlopen(request) as reply:
                        status, answered, content = reply.status, reply.headers, reply.read()
                except urllib.error.HTTPError as error:
                    with error:
                        status, answered, content = error.code, error.headers, error.read()
            headers = {name: answered[name] for name in PASSED_ON if answered.get(name)}
            if "json" in headers.get("Content-Type", ""):
                content = content.replace(cloud.emulator.encode(), cloud.url.encode())  # links to contents
            if cloud.edit:
                content = cloud.edit(self.path, content, headers)
            self.answer(status, content, headers)

        do_GET = do_POST = do_PUT = do_DELETE = forward

    try:
        with serving(Front) as cloud.url:
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
