"""A bundle that tells images apart, served over ASGI and on the loopback."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from natix_lib.bundle.runtime import Bundle
from natix_lib.serving.connections import ACCEPTS, Connection
from natix_lib.serving.server import listening
from natix_lib.serving.service import make_app
from tests.damage import changed_bundle


@pytest.fixture(scope="session")
def soft_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small bundle with a policy that tells images apart: soft probabilities, some rejected."""
    accept = {"score": "log_odds", "score_temperature": 1, "threshold": 5.0, "comparator": ">", "mode": "threshold"}
    folder = tmp_path_factory.mktemp("bundle") / "b"
    return changed_bundle(tiny_bundle, folder, "scrcparams.json", temperature=4.0, decision=None, accept=accept)


@pytest.fixture(scope="session")
def bundle(soft_bundle: Path) -> Bundle:
    return Bundle.load(soft_bundle)


@pytest.fixture
def app(bundle: Bundle) -> Starlette:
    return make_app(bundle, "natix")


@dataclass
class Running:
    """A service on the loopback, in a thread."""

    listener: socket.socket
    server: uvicorn.Server

    @property
    def address(self) -> tuple[str, int]:
        return self.listener.getsockname()[:2]

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)


@pytest.fixture
def running(app: Starlette) -> Iterator[Running]:
    """The app as `natix serve` runs it, but for its end and the log."""
    config = uvicorn.Config(app, http=Connection, lifespan="off", ws="none", backlog=ACCEPTS, log_config=None)
    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield Running(listener, server)
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(app: Starlette) -> Iterator[TestClient]:
    with TestClient(app) as opened:
        yield opened


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """More than one batch: dim noise with more and more orange; turned, transparent, grey, large with a palette."""
    folder = tmp_path_factory.mktemp("files")
    turned = Image.Exif()
    turned[0x0112] = 6
    for i in range(20):
        image = Image.fromarray(np.random.default_rng(i).integers(60, 120, (48, 72, 3), dtype=np.uint8))
        image.paste((240, 120, 20), (8, 8, 8 + 3 * i, 10 + i))
        if i % 5 == 1:
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        elif i % 5 == 2:
            image = image.convert("L")
        elif i % 5 == 3:
            image = image.resize((1080, 720)).quantize()
        image.save(folder / f"{i:02d}.png", exif=turned if i % 5 == 4 else Image.Exif())
    return sorted(folder.glob("*.png"))
