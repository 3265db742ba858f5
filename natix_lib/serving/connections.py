"""What a connection may cost: uvicorn's protocol with a time for every wait and a bound on their number.

A connection waits for headers from its beginning and from the end of each answer; whatever comes in drops, it has
WAIT_SECONDS until they are whole, so one time bounds half-sent headers, idle connections and clients that go on sending
after their answer. A client that does not read its answers has FLUSH_SECONDS. Bodies have their own pace, in `bodies`.

A socket that is closed with something unread makes the system send a reset, which can overtake the answer. So what is
no request of HTTP is answered in one piece, and what else comes is read and dropped until the client closes, for
LINGER_SECONDS at most; such a connection is the first to go when there are too many.

When there are more connections than may be, one that waits for headers is closed and the newcomer stays: idle
connections cannot keep others out. Those that were never answered go first, then the one that has waited longest: a
client that asks again and again keeps its connection while hundreds are opened in a moment. The number stays below
the limit of descriptors, because asyncio tries 2,048 times to accept at that limit and logs each try.
"""

import asyncio
import functools
import json
import logging
import resource
import sys
import time
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from natix_lib.errors import ConfigError

WAIT_SECONDS = 10  # for headers; nginx waits 60, but it has more connections to give
LINGER_SECONDS = 2  # in which a client that was refused stops sending
FLUSH_SECONDS = 30  # in which a client must read on; a large answer has 2 MB
MAX_CONNECTIONS = 512  # of 64 kB each before a body is read
ACCEPTS = 16  # connections that asyncio accepts before it looks at them
OTHER_DESCRIPTORS = 128  # of the process itself, about 30, and of connections that are being accepted or closed
LOG_SECONDS = 10  # in which a warning is repeated at most once


@functools.cache
def most_connections() -> int:
    """Connections that may be open, after the limit of descriptors was raised as far as they need and it allows.

    Raises:
        ConfigError: If not even one may be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = MAX_CONNECTIONS + OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most = MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, soft - OTHER_DESCRIPTORS)
    if most < 1:
        raise ConfigError(f"serving needs more than {OTHER_DESCRIPTORS} file descriptors, got {soft}: see ulimit -n")
    return most


class Connection(H11Protocol):
    """A connection whose waits end."""

    waits_since: float | None = None
    lingers = False
    _wait: asyncio.TimerHandle | None = None
    _flush: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers; with too many connections, close the one that has waited longest."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > most_connections():
            self._count("natix_connections_refused_total")
            waiting = [each for each in self.connections if isinstance(each, Connection) and each.waits_since]
            longest = min(waiting, key=lambda each: (not each.lingers, each.cycle is not None, each.waits_since or 0.0))
            if longest is self:
                self._refuse(503, "too many connections are open: try again")
                self.transport.close()  # it may not stay
            else:
                longest.waits_since = None  # it is in the set until the loop turns; the next newcomer closes another
                longest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        super().connection_lost(exc)
        for timer in (self._wait, self._flush):
            if timer:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Stop waiting when headers are whole."""
        if not self.lingers:
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next headers, even if the connection is closing: its last answer may not be read."""
        super().on_response_complete()
        self._watch()

    def shutdown(self) -> None:
        """Close with the server; a client that was refused has its answer."""
        if self.lingers:
            self.transport.close()
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        """Give a client that does not read its time."""
        super().pause_writing()
        self._flush = self.loop.call_later(FLUSH_SECONDS, self._give_up)

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        if self._flush:
            self._flush.cancel()

    def send_400_response(self, msg: str) -> None:
        """Say in JSON what is wrong with a request that is none, unless an answer has begun."""
        error = sys.exc_info()[1]  # h11's own words; uvicorn gives none
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if self.cycle is not None and not self.cycle.response_complete:  # its body is wrong
            self.cycle.disconnected = True  # an answer that is just being sent would raise
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(status, f"this is no request of HTTP/1.1: {error or msg!s:.200}")
        self._linger()

    def _watch(self) -> None:
        if self.lingers:
            return
        at_work = self.cycle is not None and not self.cycle.response_complete
        if at_work and self._wait:
            self._wait.cancel()
            self._wait = self.waits_since = None
        elif not at_work and not self._wait:
            self.waits_since = time.monotonic()
            self._wait = self.loop.call_later(WAIT_SECONDS, self._give_up)

    def _linger(self) -> None:
        """Send no more, and drop what comes."""
        self.lingers = True
        self.transport.write_eof()
        self.flow.resume_reading()
        if self.cycle is not None:
            self.cycle.message_event.set()  # who waits for its body sees that there is none
        if self._wait:
            self._wait.cancel()
        self.waits_since = time.monotonic()
        self._wait = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _give_up(self) -> None:
        self._count("natix_connections_timed_out_total")
        self.transport.abort()

    def _refuse(self, status: int, detail: str) -> None:
        body = json.dumps({"error": detail}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        head = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase)
        events = (head, h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))

    def _count(self, name: str) -> None:
        self.app_state[name] = self.app_state.get(name, 0) + 1


class Sparse(logging.Filter):
    """Lets a warning through once in LOG_SECONDS and counts those like it, so that clients cannot fill a disk."""

    def __init__(self) -> None:
        """Start with nothing logged."""
        super().__init__()
        self._last_logged: dict[Any, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged."""
        if record.levelno < logging.WARNING:
            return True
        key, now = (record.name, str(record.msg), record.exc_info and record.exc_info[0]), time.monotonic()
        since, left_out = self._last_logged.get(key, (-LOG_SECONDS, 0))
        if now - since < LOG_SECONDS:
            self._last_logged[key] = (since, left_out + 1)
            return False
        self._last_logged[key] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} ({left_out} more like it were not logged)"
        return True
