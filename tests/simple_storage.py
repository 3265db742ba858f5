"""S3 on the loopback: moto's server behind the front of `tests/front.py`."""

import logging
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tests.front import Store, fronting

BUCKET = "street"


@dataclass
class Simple(Store):
    """S3, past the front by boto3."""

    writes: Counter[str] = field(default_factory=Counter)  # how often each object was sent through the front

    @cached_property
    def client(self) -> Any:
        """A client, past the front."""
        import boto3
        from botocore.config import Config

        options = {"endpoint_url": self.emulator, "config": Config(retries={"total_max_attempts": 1})}
        return boto3.client("s3", aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1", **options)

    def put(self, files: dict[str, bytes]) -> None:
        """Write objects, by name."""
        for name, content in files.items():
            self.client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def contents(self) -> dict[str, bytes]:
        """Every object, by name."""
        return {name: self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in self.names()}

    def names(self) -> list[str]:
        """Names of all objects, at most 1,000."""
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ())]

    def remove(self, name: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=BUCKET, Key=name)

    def wipe(self) -> None:
        """Remove all objects, keep the bucket; nothing goes wrong any more."""
        self.calm()
        self.writes.clear()
        while names := self.names():
            self.client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": name} for name in names]})

    def is_read(self, path: str) -> str:
        address = urllib.parse.urlsplit(path)
        return "" if "list-type" in address.query else urllib.parse.unquote(address.path.removeprefix(f"/{BUCKET}/"))

    def is_list(self, path: str) -> bool:
        return "list-type=2" in path

    def intercepts(self, method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        if method == "PUT":
            self.writes[urllib.parse.unquote(path.removeprefix(f"/{BUCKET}/"))] += 1
        return None


@contextmanager
def simple_storage() -> Iterator[Simple]:
    """Start the emulator and its front, stop both at the end."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    simple = Simple(f"http://{host}:{port}")
    simple.client.create_bucket(Bucket=BUCKET)
    try:
        with fronting(simple):
            yield simple
    finally:
        server.stop()
