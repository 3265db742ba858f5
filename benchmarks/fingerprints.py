"""What check pays in every run for seeing whether a source has changed: the fingerprint of a million objects.

The stores are stand-ins on the loopback that answer at once, with the pages of 1,000 objects and the entries that the
services send. A real one takes some 0.1 s or more for a page, one after another: on paper that is added to the CPU
seconds. The peers list the same with the services' own clients and count, or walk the folder and ask for each file's
status. Each line is a process of its own, so that its peak memory is its own.
Run: `python -m benchmarks.fingerprints`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from rich.console import Console
from rich.table import Table

from natix_lib import storage

PAGE = 1000
PAGE_SECONDS = 0.1
BUCKET = "street"
AGE = "2026-11-01T10:00:00.000Z"


def of_cloud_storage(first: int, number: int, fields: str) -> bytes:
    """A page of the JSON API: with `fields` what natix asks for, else all that an object has."""
    items = []
    for row in range(first, first + number):
        name = f"set/drive-{row // 500:05}/{row:08}.jpg"
        item = {"name": name, "size": "183245", "crc32c": f"{row:06}==", "generation": str(1700000000000000 + row)}
        if not fields:
            item |= {
                "kind": "storage#object", "id": f"{BUCKET}/{name}/{item['generation']}", "bucket": BUCKET,
                "selfLink": f"https://www.googleapis.com/storage/v1/b/{BUCKET}/o/{name}", "metageneration": "1",
                "mediaLink": f"https://storage.googleapis.com/download/storage/v1/b/{BUCKET}/o/{name}?alt=media",
                "contentType": "image/jpeg", "storageClass": "STANDARD", "md5Hash": f"{row:022}==", "etag": "CJ==",
                "timeCreated": AGE, "updated": AGE, "timeStorageClassUpdated": AGE, "timeFinalized": AGE,
            }  # fmt: skip
        items.append(item)
    return json.dumps({"items": items}).encode()


def of_s3(first: int, number: int) -> bytes:
    """The entries of a page of ListObjectsV2."""
    entry = (
        "<Contents><Key>set/drive-{:05}/{:08}.jpg</Key><LastModified>{}</LastModified><ETag>&quot;{:032x}&quot;</ETag>"
    )
    entry += "<Size>183245</Size><StorageClass>STANDARD</StorageClass></Contents>"
    return "".join(entry.format(row // 500, row, AGE, row) for row in range(first, first + number)).encode()


def answering(objects: int) -> type[BaseHTTPRequestHandler]:
    """Both services, by the path that their clients ask for."""

    class Stores(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(address.query).items()}
            google = address.path.startswith("/storage/v1/")
            first = int(asked.get("pageToken") or asked.get("continuation-token") or 0)
            rest = objects - first - PAGE
            if google and not address.path.endswith("/o"):
                return self.give(404, b"{}", "application/json")
            if google:
                body = of_cloud_storage(first, min(PAGE, objects - first), asked.get("fields", ""))
                if rest > 0:
                    body = body[:-1] + b', "nextPageToken": "%d"}' % (first + PAGE)
                return self.give(200, body, "application/json")
            more = f"<IsTruncated>{str(rest > 0).lower()}</IsTruncated>"
            more += f"<NextContinuationToken>{first + PAGE}</NextContinuationToken>" if rest > 0 else ""
            body = of_s3(first, min(PAGE, objects - first))
            return self.give(200, b"<ListBucketResult>%s%s</ListBucketResult>" % (more.encode(), body), "text/xml")

        def do_HEAD(self) -> None:
            self.give(404, b"", "text/xml")

        def give(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Stores


def natix(place: str) -> None:
    """The fingerprint of a place."""
    storage.fingerprint(place)


def peer(place: str) -> None:
    """The same entries by the service's client, or the status of every file."""
    if place.startswith("gs://"):
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage as google

        client = google.Client("emulated", AnonymousCredentials())
        sum(1 for _ in client.list_blobs(BUCKET, prefix="set/"))
    elif place.startswith("s3://"):
        import boto3

        pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="set/")
        sum(len(page["Contents"]) for page in pages)
    else:
        for folder, _, names in os.walk(place):
            for name in names:
                Path(folder, name).stat()


def measure(who: str, place: str) -> None:
    """Print CPU seconds, wall seconds and the peak of memory, MiB, of one in this process."""
    cpu, wall = time.process_time(), time.perf_counter()
    {"natix": natix, "peer": peer}[who](place)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall, peak]))


def main() -> None:
    """Measure natix and its peers on each kind of place."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--objects", type=int, default=1_000_000, help="of a bucket")
    parser.add_argument("--files", type=int, default=100_000, help="of a local folder")
    parser.add_argument("--one", nargs=2, metavar=("WHO", "PLACE"))
    arguments = parser.parse_args()
    if arguments.one:
        return measure(*arguments.one)
    table = Table("place", "entries", "who", "CPU s", "s", f"on paper, {PAGE_SECONDS} s a page", "peak MiB")
    server = ThreadingHTTPServer(("127.0.0.1", 0), answering(arguments.objects))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": url, "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "a"}
    environment |= {"AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    with tempfile.TemporaryDirectory() as folder:
        for row in range(arguments.files):
            if row % 500 == 0:
                Path(folder, f"{row // 500:05}").mkdir()
            Path(folder, f"{row // 500:05}", f"{row:08}.jpg").touch()
        for place, name in ((f"gs://{BUCKET}/set", "gs://"), (f"s3://{BUCKET}/set", "s3://"), (folder, "folder")):
            entries = arguments.files if place == folder else arguments.objects
            for who in ("natix", "peer"):
                command = [sys.executable, "-m", "benchmarks.fingerprints", "--one", who, place]
                ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                cpu, wall, peak = json.loads(ended.stdout.splitlines()[-1])
                paper = "" if place == folder else f"{cpu + PAGE_SECONDS * entries / PAGE:.0f}"
                table.add_row(name, f"{entries:,}", who, f"{cpu:.1f}", f"{wall:.1f}", paper, str(peak))
    server.shutdown()
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
