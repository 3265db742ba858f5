"""Cloud Storage on the loopback: the emulator of PyPI behind a front that adds what it lacks.

The front enforces `ifGenerationMatch=0`, which the emulator ignores, under a lock, and answers 503 as often as
a test asks.
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

from gcp_storage_emulator.server import create_server

from tests.loopback import Handler, serving

BUCKET = "street"
PASSED_ON = ("Content-Type", "X-Goog-Hash", "Location", "Range", "ETag")


@dataclass
class Cloud:
    """Where it listens, and how many of the next requests fail with 503."""

    emulator: str
    url: str = ""
    failures: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wipe(self) -> None:
        """Remove all objects, keep the bucket."""
        self.failures = 0
        urllib.request.urlopen(f"{self.emulator}/wipe?keep-buckets=True").close()

    def holds(self, name: str) -> bool:
        """Whether an object exists."""
        try:
            urllib.request.urlopen(f"{self.emulator}/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(name, safe='')}")
            return True
        except urllib.error.HTTPError as error:
            error.close()
            return False


@contextmanager
def cloud_storage() -> Iterator[Cloud]:
    """Start the emulator and its front, stop both at the end."""
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    host, port = server._api._httpd.server_address[:2]
    cloud = Cloud(f"http://{host}:{port}")

    class Front(Handler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if cloud.failures:
                cloud.failures -= 1
                return self.answer(503, b"")
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            with cloud.lock:
                if query.get("ifGenerationMatch") == ["0"]:
                    names = re.findall(rb'"name": ("(?:[^"\\]|\\.)*")', body)
                    if cloud.holds(query["name"][0] if "name" in query else json.loads(names[0])):
                        return self.answer(412, b'{"error": {"code": 412, "message": "conditionNotMet"}}')
                kept = {name: value for name, value in self.headers.items() if name not in ("Host", "Connection")}
                wanted = urllib.request.Request(cloud.emulator + self.path, body or None, kept, method=self.command)
                try:
                    with urllib.request.urlopen(wanted) as reply:
                        status, headers, content = reply.status, reply.headers, reply.read()
                except urllib.error.HTTPError as error:
                    with error:
                        status, headers, content = error.code, error.headers, error.read()
            self.answer(status, content, {name: headers[name] for name in PASSED_ON if headers.get(name)})

        do_GET = do_POST = do_PUT = do_DELETE = forward

    try:
        with serving(Front) as cloud.url:
            yield cloud
    finally:
        server.stop()
