"""What is kept of a bucket, and what goes wrong on the way to it: right results or one line, and nothing half-used."""

import contextlib
import gc
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from natix_lib import repeats, storage
from natix_lib.errors import StorageError
from natix_lib.files import sha256_file
from natix_lib.storage import gs, remote, s3, staging
from natix_lib.storage.bucket import Object
from tests.cloud_storage import BUCKET
from tests.front import Store
from tests.storage.places import contents

FILES = {f"set/{number}.jpg": bytes([number]) * (1000 + number) for number in range(6)}
BAD = "set/3.jpg"
SCHEMES = {"gs": "cloud", "s3": "simple"}
OPEN_CLIENT = s3.open_client.__wrapped__
DENIED = {
    "gs": (401, b'{"error": {"code": 401, "message": "Invalid Credentials"}}'),
    "s3": (400, b"<Error><Code>ExpiredToken</Code><Message>The token b has expired</Message></Error>"),
}


class Scene:
    """A store with FILES, its scheme, and what a reader sees of them."""

    def __init__(self, scheme: str, store: Store, place: Path) -> None:
        self.scheme, self.store, self.place, self.uri = scheme, store, place, f"{scheme}://{BUCKET}/set"
        self.put(FILES)

    def put(self, files: dict[str, bytes]) -> None:
        self.store.put(files)  # type: ignore[attr-defined]

    def remove(self, name: str) -> None:
        self.store.remove(name)  # type: ignore[attr-defined]

    def seen(self) -> dict[str, bytes]:
        with storage.staged(self.uri, self.place) as staged:
            return {f"set/{name}": content for name, content in contents(staged.folder).items()}

    def kept(self) -> list[bytes]:
        """What is kept, checked to be whole."""
        files = [path for path in self.place.glob("*/objects/[!.]*")]
        for path in files:
            assert sha256_file(path)[: staging.DIGITS] == path.name.partition("-")[2]
        return [path.read_bytes() for path in files]


@cache
def impatient(endpoint: str) -> Any:
    """A client that waits for two seconds; one for all tests, because it leaves its connections open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3, "READ_SECONDS", 2)
        return OPEN_CLIENT(endpoint)


@pytest.fixture(scope="module", autouse=True)
def connections_that_a_client_leaves() -> Iterator[None]:
    """Google's client drops the connection of a refused answer unread: collected here, not in a later test."""
    gc.disable()
    yield
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.enable()
        gc.collect()


@pytest.fixture(params=SCHEMES)
def scene(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(repeats, "ELSEWHERE", 3.0)
    monkeypatch.setattr(gs, "TRANSFER_SECONDS", 2)
    monkeypatch.setattr(s3, "open_client", impatient)
    return Scene(request.param, request.getfixturevalue(SCHEMES[request.param]), tmp_path / "kept")


def test_what_has_not_changed_is_not_sent_again_and_what_is_gone_is_not_kept(scene: Scene) -> None:
    assert scene.seen() == FILES and scene.store.sent == {name: len(content) for name, content in FILES.items()}
    scene.store.sent.clear()
    assert scene.seen() == FILES and scene.store.sent == {}
    scene.put({BAD: b"new"})
    scene.remove("set/0.jpg")
    now = {name: content for name, content in FILES.items() if name != "set/0.jpg"} | {BAD: b"new"}
    assert scene.seen() == now and scene.store.sent == {BAD: 3}
    assert sorted(scene.kept()) == sorted(now.values())
    assert not list(scene.place.glob("*/tree-*"))


def test_a_kept_content_that_was_damaged_is_sent_again(scene: Scene) -> None:
    scene.seen()
    scene.store.sent.clear()
    damaged = next(path for path in scene.place.glob("*/objects/*") if path.read_bytes() == FILES[BAD])
    damaged.chmod(0o644)
    damaged.write_bytes(b"\0" + FILES[BAD][1:])
    assert scene.seen() == FILES and scene.store.sent == {BAD: len(FILES[BAD])}


def wrong(scene: Scene, damage: Callable[[bytes], bytes]) -> None:
    scene.store.edit = lambda path, content, headers: damage(content) if scene.store.is_read(path) == BAD else content


def always(scene: Scene, status: int, refusal: bytes, failing: Callable[[str], bool]) -> None:
    scene.store.failures, scene.store.status, scene.store.refusal, scene.store.failing = 999, status, refusal, failing


def is_bad(scene: Scene) -> Callable[[str], bool]:
    return lambda path: scene.store.is_read(path) == BAD


FAULTS: dict[str, tuple[Callable[[Scene], object], str]] = {  # kind: what goes wrong, and the line
    "wrong bytes": (lambda scene: wrong(scene, lambda content: b"\1" + content[1:]), "does not match"),
    "truncated, and said to be whole": (
        lambda scene: wrong(scene, lambda content: content[:500]),
        "does not match|bytes",
    ),
    "500 for ever": (lambda scene: always(scene, 500, b"", is_bad(scene)), "500"),
    "listing fails": (lambda scene: always(scene, 503, b"", scene.store.is_list), "503"),
    "credentials expire": (
        lambda scene: always(scene, *DENIED[scene.scheme], is_bad(scene)),
        "cannot be refreshed|the credentials have expired",
    ),
    "listing is cut": (
        lambda scene: setattr(
            scene.store,
            "edit",
            lambda path, content, _: content[: len(content) // 2] if scene.store.is_list(path) else content,
        ),
        ".",
    ),
    "connection is cut each time": (lambda scene: setattr(scene.store, "cuts", 999), "."),
    "no answer in time": (lambda scene: setattr(scene.store, "seconds", 3.0), "timed out|Timeout|timeout"),
}
SLOW = {"500 for ever", "listing fails", "connection is cut each time", "no answer in time", "listing is cut"}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in FAULTS]
)
def test_a_fault_is_one_line_and_the_next_fetch_goes_on(scene: Scene, kind: str, tmp_path: Path) -> None:
    fault, message = FAULTS[kind]
    fault(scene)
    for attempt in (scene.seen, lambda: storage.fetch_folder(scene.uri, tmp_path / "out")):
        with pytest.raises(StorageError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value) and f"{scene.scheme}://{BUCKET}" in str(caught.value)
        assert "The token b" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["kept"])
    assert not list(scene.place.glob("*/tree-*")) and not list(scene.place.glob("*/objects/.*"))
    kept = len(scene.kept())
    scene.store.calm()
    assert scene.seen() == FILES and len(scene.store.sent) == len(FILES) - kept


@pytest.mark.parametrize("kind", ["two 503", pytest.param("cut once", marks=pytest.mark.slow)])
def test_a_fault_that_passes_is_not_seen(scene: Scene, kind: str) -> None:
    if kind == "two 503":
        scene.store.failures = 2
    else:
        scene.store.cuts = 3
    assert scene.seen() == FILES and not scene.store.failures and not scene.store.cuts


@pytest.mark.parametrize("change", ["replaced", "removed", "added"])
def test_what_changes_while_it_is_read_is_read_as_of_one_moment(scene: Scene, change: str) -> None:
    changes: dict[str, tuple[Callable[[], object], dict[str, bytes]]] = {
        "replaced": (lambda: scene.put({BAD: b"new"}), FILES | {BAD: b"new"}),
        "removed": (lambda: scene.remove(BAD), {name: FILES[name] for name in FILES if name != BAD}),
        "added": (lambda: scene.put({"set/9.jpg": b"9"}), FILES | {"set/9.jpg": b"9"}),
    }
    happens, then = changes[change]

    def once(name: str) -> None:
        if name == BAD:
            scene.store.before = None
            happens()

    scene.store.before = once
    assert scene.seen() == then
    assert sorted(scene.kept()) == sorted(then.values())


def test_what_never_rests_is_refused(scene: Scene) -> None:
    states = iter(range(99))

    def each_time(name: str) -> None:
        if name == BAD:
            scene.put({BAD: b"%d" % next(states)})

    scene.store.before = each_time
    with pytest.raises(StorageError, match=rf"{scene.uri} was changed each of the {remote.MOMENTS} times that it was"):
        scene.seen()
    assert not list(scene.place.glob("*/tree-*"))


@contextlib.contextmanager
def no_space_behind(size: int) -> Iterator[None]:
    """A disk that takes no file of more bytes, as one that is full in the middle of it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_is_one_line_and_leaves_no_part(scene: Scene) -> None:
    scene.put({BAD: b"x" * 3_000_000})
    with no_space_behind(1_000_000), pytest.raises(StorageError, match=r"set/3.jpg: File too large$"):
        scene.seen()
    assert not list(scene.place.glob("*/objects/.*")) and b"x" not in {content[:1] for content in scene.kept()}


KILLED = """
import os, signal, sys
from natix_lib import repeats, storage
with storage.staged(sys.argv[1], sys.argv[2]):
    pass
"""


@pytest.mark.slow
def test_a_fetch_that_was_killed_goes_on_where_it_was(scene: Scene) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, scene.uri, str(scene.place)]) as process:

        def kill(name: str) -> None:
            if name == BAD:
                process.kill()

        scene.store.before = kill
    assert process.returncode == -9 and list(scene.place.glob("*/tree-*"))
    scene.store.calm()
    kept = len(scene.kept())
    assert scene.seen() == FILES and len(scene.store.sent) == len(FILES) - kept
    assert not list(scene.place.glob("*/tree-*")) and not list(scene.place.glob("*/objects/.*"))


def test_readers_at_once_see_their_own_moment(scene: Scene) -> None:
    with storage.staged(scene.uri, scene.place) as first:
        scene.put({BAD: b"new"})
        assert scene.seen() == FILES | {BAD: b"new"}
        assert contents(first.folder) == {name.removeprefix("set/"): content for name, content in FILES.items()}


def test_addresses_that_were_not_used_for_longest_go_first(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.put({"other/a": b"a" * 50})
    scene.seen()
    monkeypatch.setattr(staging, "MOST_KEPT", 100)
    with storage.staged(f"{scene.scheme}://{BUCKET}/other", scene.place):
        pass
    assert scene.kept() == [b"a" * 50]


def test_no_reader_s_end_or_settling_takes_what_another_one_reads(tmp_path: Path) -> None:
    listed = Object("a", "s3://street/a", 3, "", (3, "x"), None)

    @contextlib.contextmanager
    def reader() -> Iterator[Path]:
        with staging.kept(tmp_path, "s3://street", 3) as here:
            here.put(listed, here.tree / "a", lambda _, path: path.write_bytes(b"abc"))
            here.settle([listed])
            yield here.tree / "a"

    with contextlib.ExitStack() as second:
        with reader():
            seen = second.enter_context(reader())  # settles while the first one reads
        with reader():
            assert seen.exists()
        assert seen.exists()
    assert {path.name for path in tmp_path.rglob("*") if path.parent.name != "objects"} == {
        "lock", seen.parent.parent.name, "address.json", "objects"
    }  # fmt: skip


def test_contents_go_when_nobody_else_reads_and_addresses_in_use_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Object("a", "s3://street/a", 3, "", (3, "x"), None)
    monkeypatch.setattr(staging, "MOST_KEPT", 1)
    with staging.kept(tmp_path, "s3://street", 3) as here:
        here.put(listed, here.tree / "a", lambda _, path: path.write_bytes(b"abc"))
        with staging.kept(tmp_path, "s3://street", 3) as other, staging.kept(tmp_path, "s3://road", 3):
            other.settle([])
            here.settle([])
        assert len(list(tmp_path.glob("*/objects/*"))) == 1 and (here.tree / "a").exists()
        here.settle([])
        assert not list(tmp_path.glob("*/objects/*")) and (here.tree / "a").exists()
