"""Addresses that name no place, and what is imported for those that do."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from natix_lib import grammar, storage
from natix_lib.errors import StorageError
from tests.cloud_storage import Cloud
from tests.simple_storage import Simple
from tests.storage.places import bundle


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("a\0b", "a path must not contain a NUL, got 'a.x00b'"),
        ("", "a path must name a file or folder, got ''"),
        ("ftp://bucket/x", "no other addresses are read, got 'ftp://bucket/x'"),
        ("gs:/bucket/x", "no other addresses are read"),
        ("gs://Bucket/x", "a bucket address must name a bucket"),
        ("gs://street/a/../b", "a bucket address must name an object without empty parts"),
        ("gs://street/a\nb", "a bucket address must name an object"),
        ("{file}/below", "Not a directory|does not exist|File exists"),
        ("{long}", "File name too long"),
    ],
)
def test_a_place_that_is_none_is_one_line_whatever_is_done_there(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    uri = place.format(file=tmp_path / "file", long=tmp_path / ("x" * 300))
    folder = bundle(tmp_path / "b", "first")
    below = uri.endswith("below")  # where nothing can be, nothing is listed and nothing removed

    def remove(uri: str) -> bool:
        storage.remove_folder(uri)
        return True

    attempts: tuple[Callable[[], object], ...] = (
        lambda: storage.fetch_file(uri, tmp_path),
        lambda: storage.fetch_folder(uri, tmp_path / "out"),
        lambda: storage.write_file(uri, b"x"),
        lambda: storage.remove_file(uri),
        lambda: storage.file_names(uri) == [] and below and storage.fetch_file(uri, tmp_path),
        lambda: remove(uri) and below and storage.fetch_file(uri, tmp_path),
        lambda: storage.fingerprint(uri),
        lambda: storage.mirror(folder, uri),
        lambda: storage.publish_folder(folder, uri, "bundle.json"),
    )
    for attempt in attempts:
        with pytest.raises(StorageError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://street/absent", "holds no object"),
        ("gs://no-such-bucket/x", "does not exist"),
        ("gs://street", "must read gs://bucket/path"),
    ],
)
def test_an_address_with_nothing_behind_it_is_one_line(cloud: Cloud, tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        storage.fetch_folder(uri, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scheme", grammar.SCHEMES)
def test_every_scheme_of_the_grammar_has_its_buckets(cloud: Cloud, simple: Simple, scheme: str) -> None:
    assert storage.is_remote(f"{scheme}://street/x")
    assert storage.file_names(f"{scheme}://street/x") == []


def test_the_client_of_a_bucket_is_imported_when_an_address_needs_it(tmp_path: Path) -> None:
    script = (
        "import sys; from natix_lib import storage; storage.fingerprint(sys.argv[1]);"
        "print([name for name in sys.modules if name.startswith(('google.cloud.storage', 'natix_lib.storage.gs'))])"
    )
    ended = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
