"""The process of a service: its port, its start and its end."""

import logging
import re
import signal
import socket
from pathlib import Path

import uvicorn

from natix_lib.bundle.runtime import Bundle
from natix_lib.errors import ConfigError
from natix_lib.serving.connections import ACCEPTS, Connection, Sparse, most_connections
from natix_lib.serving.service import make_app
from natix_lib.stopping import stoppable

STOP_SECONDS = 25  # for the requests that are open at SIGTERM; a pod has 30
BACKLOG = 1024  # connections that the system holds until they are accepted

log = logging.getLogger("uvicorn.error")


class Server(uvicorn.Server):
    """uvicorn's server with a long queue before its door and an end that nothing can put off."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open; asyncio knows one number for the queue and for what it accepts at once, so the queue is set again."""
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(BACKLOG)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the open requests; an image that is still decoded when their time is over ends with the process."""
        signal.alarm(STOP_SECONDS + 2)  # no exception and no thread's end comes through a decoder
        await super().shutdown(sockets)


def serve(folder: Path, name: str, host: str, port: int) -> None:
    """Load a bundle and answer until SIGTERM or SIGINT, then finish the open requests and exit with 0.

    Args:
        folder: The bundle's folder.
        name: The model's name in the addresses.
        host: Address to listen on.
        port: 0 takes a free one; the log says which.

    Raises:
        ConfigError: If the name cannot stand in an address, the port cannot be had, or there are too few descriptors.
        ContractError: If the bundle is not whole.
        BundleError: If this machine does not repeat the bundle's golden images.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(f"--name must be letters, digits, '.', '_' and '-', got {name!r}")
    with stoppable(0):  # uvicorn raises the signal again when it has stopped
        _serve(folder, name, host, port)


def _serve(folder: Path, name: str, host: str, port: int) -> None:
    most_connections()
    bundle = Bundle.load(folder)
    server = Server(configured(make_app(bundle, name)))
    logging.captureWarnings(True)  # Pillow warns of broken files
    for logger in ("uvicorn.error", "asyncio", "py.warnings"):
        logging.getLogger(logger).addFilter(Sparse())
    with listening(host, port) as listener:
        address, taken = listener.getsockname()[:2]
        log.info("Serving %s from %s on %s port %d", name, folder, address, taken)
        log.info("The policy of %s is %s", name, bundle.promise)
        server.run(sockets=[listener])


def configured(app: object) -> uvicorn.Config:
    """How uvicorn runs the service."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=Connection,
        lifespan="off",
        ws="none",
        server_header=False,
        backlog=ACCEPTS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


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
