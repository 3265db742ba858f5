"""What stands before the emulator of a store and lets go wrong what a test asks for.

It answers an error, changes an answer on its way, cuts the connection in the middle of one, keeps a client waiting, and
lets something happen just before an object is read.
"""

import contextlib
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.loopback import Handler, serving

PASSED_ON = {"content-type", "x-goog-hash", "location", "range", "content-range", "etag", "last-modified"}

# Gives the body of an answer for the request's path, the body and the headers, which it may change.
Edit = Callable[[str, bytes, dict[str, str]], bytes]


@dataclass
class Store:
    """Where it listens, how many of the next requests fail, and what else goes wrong.

    A test's store says what the paths of its requests mean.
    """

    emulator: str
    url: str = ""
    failures: int = 0  # how many of the next requests that are `failing` are answered with `status` and `refusal`
    status: int = 503
    refusal: bytes = b""
    failing: Callable[[str], bool] | None = None  # by path; None is every request
    edit: Edit | None = None
    lost: Callable[[str, str, bytes], bool] | None = None  # whether what this request asks is done and not answered
    cuts: int = 0  # how many of the next contents are sent by half, and the connection closed
    seconds: float = 0.0  # that a client waits for each content
    before: Callable[[str], None] | None = None  # what happens before the object of this name is read
    sent: dict[str, int] = field(default_factory=dict)  # bytes of contents that were sent, by name
    lock: threading.RLock = field(default_factory=threading.RLock)

    def calm(self) -> None:
        """Nothing goes wrong any more, and nothing was sent."""
        self.failures, self.status, self.refusal, self.failing = 0, 503, b"", None
        self.edit, self.lost, self.cuts, self.seconds, self.before = None, None, 0, 0.0, None
        self.sent.clear()

    def is_read(self, path: str) -> str:
        """Name of the object whose content a GET of this path is answered with; "" for another."""
        raise NotImplementedError

    def is_list(self, path: str) -> bool:
        """Whether a GET of this path lists."""
        raise NotImplementedError

    def drops(self, method: str, path: str, body: bytes) -> bool:
        """Whether this request gets no answer; may take its time."""
        return False

    def intercepts(self, method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        """The answer in the emulator's place; None leaves it to the emulator."""
        return None

    def fails(self, path: str) -> bool:
        """Whether this request is one of those that fail."""
        with self.lock:
            fails = self.failures > 0 and (self.failing is None or self.failing(path))
            self.failures -= fails
            return fails

    def cut(self) -> bool:
        """Whether this content is one of those that are sent by half."""
        with self.lock:
            cut = self.cuts > 0
            self.cuts -= cut
            return cut


@contextmanager
def fronting(store: Store) -> Iterator[None]:
    """Listen before a store's emulator."""

    class Front(Handler):
        def forward(self) -> None:
            if self.headers.get("Expect"):  # boto3 waits a second for it
                self.send_response_only(100)
                self.end_headers()
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:  # its sender was killed; the emulator would wait for the rest for ever
                return None
            if store.fails(self.path):
                return self.answer(store.status, store.refusal)
            name = store.is_read(self.path) if self.command == "GET" else ""
            if name and store.before:
                store.before(name)
            if store.drops(self.command, self.path, body):
                return None
            with store.lock:
                instead = store.intercepts(self.command, self.path, body)
                if instead:
                    return self.answer(*instead)
                status, headers, content = _asked(store, self.command, self.path, dict(self.headers), body)
            if store.lost and store.lost(self.command, self.path, body):
                return None
            if "json" in headers.get("Content-Type", ""):
                content = content.replace(store.emulator.encode(), store.url.encode())  # links to contents
            if store.edit:
                content = store.edit(self.path, content, headers)
            if name:
                store.sent[name] = store.sent.get(name, 0) + len(content)
                time.sleep(store.seconds)
                if store.cut():
                    return self.answer_by_half(status, content, headers)
            with contextlib.suppress(ConnectionError):  # a client that was killed
                self.answer(status, content, headers)

        def answer_by_half(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = forward

    with serving(Front) as store.url:
        yield


def _asked(
    store: Store, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the emulator's answer."""
    kept = {name.title(): value for name, value in headers.items() if name.title() not in ("Host", "Connection")}
    kept.setdefault("Content-Type", "application/octet-stream")  # or else urllib's, a form's
    request = urllib.request.Request(store.emulator + path, body or None, kept, method=method)
    try:
        with urllib.request.urlopen(request) as reply:
            status, answered, content = reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            status, answered, content = error.code, error.headers, error.read()
    passed = {
        name: value
        for name, value in answered.items()
        if name.lower() in PASSED_ON or name.lower().startswith("x-amz-")
    }
    if method == "HEAD":
        content = bytes(int(answered.get("Content-Length") or 0))  # for its length, which alone is sent
    return status, passed, content
