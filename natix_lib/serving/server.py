"""The process of a service: its port, its start and its end.

At SIGTERM a cluster still sends: the pod's address is taken back from every node in its own time, seconds later at
times. So the service says at once that it is not ready, and goes on answering and accepting for `drain` seconds, each
answer with `Connection: close`, so that clients who keep a connection come back elsewhere. Then the port closes; what
waits at it is taken in first and answered after, because the system resets what it holds for a port that closes.
Connections that have brought no request yet have LAST_SECONDS, requests STOP_SECONDS. A sleep before SIGTERM (a
`preStop` hook) was rejected: it keeps kept connections, needs a shell in the image, and each manifest would have to
repeat it.
"""

import asyncio
import logging
import math
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from natix_lib.bundle.runtime import NOT_WATCHED
from natix_lib.errors import ConfigError
from natix_lib.serving.connections import ACCEPTS, Connection, Sparse, most_connections
from natix_lib.serving.opening import open_bundle
from natix_lib.serving.service import make_app
from natix_lib.stopping import stoppable

LAST_SECONDS = 2  # for the first request of a connection, from when the port is closed
STOP_SECONDS = 14  # for the requests that are open then; with a drain of 10, all is over in the 30 that a pod has
BACKLOG = 1024  # connections that the system holds until they are accepted
TICK = 0.02  # seconds

log = logging.getLogger("uvicorn.error")


class Server(uvicorn.Server):
    """uvicorn's server with a long queue before its door and an end that loses no request and nothing can put off."""

    def __init__(self, app: Starlette, drain: int) -> None:
        """Serve `app`; at SIGTERM, go on for `drain` seconds."""
        super().__init__(configured(app))
        self._app, self._drain = app, drain
        self._closes = math.inf  # when the port does, on the monotonic clock

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open; asyncio knows one number for the queue and for what it accepts at once, so the queue is set again."""
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(BACKLOG)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end at the first signal, and end at the second."""
        if self.should_exit:
            os._exit(128 + sig)  # a signal's own way to end does nothing to the first process of a container
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Whether the port closes: `drain` seconds after SIGTERM, at once after SIGINT."""
        ends = await super().on_tick(counter)
        if ends and not self._app.state.stopping:
            self._app.state.stopping = True
            seconds = self._drain if signal.SIGTERM in self._captured_signals else 0
            self._closes = time.monotonic() + seconds
            log.info("Not ready any more; the port closes in %d s", seconds)
        return ends and time.monotonic() >= self._closes

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in who waits at the port, close it, and finish what is open.

        An image that is still decoded when the time is over ends with the process: no exception and no thread's end
        comes through a decoder.
        """
        last = threading.Timer(LAST_SECONDS + STOP_SECONDS + 2, os._exit, [1])
        last.daemon = True
        last.start()
        accepted = [each for listener in sockets or [] for each in _accepted(listener)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for each in accepted:
            await loop.connect_accepted_socket(self._connection, each)
        await _turns()
        until = time.monotonic() + LAST_SECONDS
        while any(map(_waits, self.server_state.connections)) and time.monotonic() < until:
            await asyncio.sleep(TICK)
        await _turns()
        await super().shutdown(sockets)

    def _connection(self) -> asyncio.Protocol:
        return Connection(self.config, self.server_state, self.lifespan.state)


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """What waits at a port, taken in at once: the loop, which accepts a few at a time, answers them in between."""
    for _ in range(most_connections()):
        try:
            yield listener.accept()[0]
        except OSError:  # none waits, or there is no descriptor left
            return


async def _turns() -> None:
    """Let what the loop has accepted become connections, and what has come be read; a sleep proves neither."""
    for _ in range(4):
        await asyncio.sleep(0)


def _waits(connection: object) -> bool:
    return (
        isinstance(connection, Connection)
        and connection.waits_since is not None
        and not connection.transport.is_closing()
    )


def serve(bundle: str, name: str, host: str, port: int, drain: int, sha256: str = "") -> None:
    """Load a bundle and answer until SIGTERM or SIGINT, then finish the open requests and exit with 0.

    After SIGTERM requests are accepted for `drain` seconds; all is over at most 18 s after them. A second signal ends
    the process at once, with 128 + its number.

    Args:
        bundle: The bundle's folder, or its address in a bucket, which is fetched.
        name: The model's name in the addresses.
        host: Address to listen on.
        port: 0 takes a free one; the log says which.
        drain: Seconds, at least 0.
        sha256: The `bundle_sha256` that the bundle must have; "" takes any.

    Raises:
        ConfigError: If the name cannot stand in an address, the port cannot be had, or there are too few descriptors.
        StorageError: If the bundle cannot be fetched.
        ContractError: If the bundle is not whole.
        BundleError: If this machine does not repeat the bundle's golden images, or the bundle is another.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(f"--name must be letters, digits, '.', '_' and '-', got {name!r}")
    with stoppable(0):  # uvicorn raises the signal again when it has stopped
        most_connections()
        loaded = open_bundle(bundle, sha256)
        server = Server(make_app(loaded, name), drain)
        logging.captureWarnings(True)  # Pillow warns of broken files
        for logger in ("uvicorn.error", "asyncio", "py.warnings"):
            logging.getLogger(logger).addFilter(Sparse())
        with listening(host, port) as listener:
            address, taken = listener.getsockname()[:2]
            log.info("Serving %s from %s on %s port %d", name, bundle, address, taken)
            log.info("The policy of %s is %s", name, loaded.promise)
            if loaded.documents.drift is None:
                log.info(NOT_WATCHED)
            server.run(sockets=[listener])


def configured(app: Starlette) -> uvicorn.Config:
    """How uvicorn runs the service."""
    return uvicorn.Config(
        closing(app),
        http=Connection,
        lifespan="off",
        ws="none",
        server_header=False,
        backlog=ACCEPTS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def closing(app: Starlette) -> ASGIApp:
    """`app`, each of whose answers is the last of its connection once `app.state.stopping`.

    That is looked at when an answer begins and not when its request does, so that no connection outlives the end by
    one request more.
    """

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and app.state.stopping:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, send_last)

    return answered


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens and knows that it speaks TCP.

    `socket.create_server` leaves the protocol at 0, and asyncio sets TCP_NODELAY only on connections whose protocol is
    TCP: every answer would wait 40 ms for the client's delayed acknowledgement.

    Raises:
        ConfigError: If the port cannot be had.
    """
    try:
        made = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(f"--host {host} --port {port} cannot be listened on: {error.strerror}") from error
    return socket.socket(made.family, made.type, socket.IPPROTO_TCP, fileno=made.detach())
