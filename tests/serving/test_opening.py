"""A bundle that is served from where it lies in a bucket."""

import http.client
import json
import os
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from natix_lib import storage
from natix_lib.bundle.runtime import Bundle
from natix_lib.cli import app
from natix_lib.errors import BundleError, ConfigError, ContractError, NatixError, StorageError
from natix_lib.files import sha256_file
from natix_lib.serving.opening import open_bundle
from tests.cloud_storage import Cloud
from tests.damage import changed_bundle
from tests.serving.asking import PREDICT, printed, request_of
from tests.serving.process import served
from tests.simple_storage import Simple
from tests.storage.places import CloudStorage, Memory, Place, SimpleStorage, contents


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Memory(monkeypatch)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, empty."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def put(place: Place, folder: Path, name: str = "bundles/first") -> str:
    place.put({f"{name}/{file}": content for file, content in contents(folder).items()})
    return place.uri(name)


@pytest.mark.parametrize("end", ["", "/"])
def test_a_bundle_in_a_bucket_answers_as_in_its_folder_and_leaves_no_file(
    soft_bundle: Path, bundle: Bundle, files: list[Path], place: Place, temporary: Path, end: str
) -> None:
    opened = open_bundle(put(place, soft_bundle) + end, sha256_file(soft_bundle / "bundle.json").upper())
    assert not list(temporary.iterdir())
    assert printed(opened, files[:3]) == printed(bundle, files[:3])


def test_another_bundle_than_the_one_named_is_refused_wherever_it_lies(
    soft_bundle: Path, tiny_bundle: Path, place: Place, temporary: Path
) -> None:
    wanted = sha256_file(tiny_bundle / "bundle.json")
    got = sha256_file(soft_bundle / "bundle.json")
    for address in (put(place, soft_bundle), str(soft_bundle)):
        with pytest.raises(BundleError, match=f"bundle {address}: bundle_sha256 must be {wanted}, got {got}"):
            open_bundle(address, wanted)
    assert not list(temporary.iterdir())


def test_the_model_of_another_bundle_is_not_opened(soft_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr("natix_lib.bundle.runtime.open_session", lambda path, *_: opened.append(path))
    with pytest.raises(BundleError, match="bundle_sha256 must be 0+, got"):
        open_bundle(str(soft_bundle), "0" * 64)
    assert not opened


def test_what_a_process_left_that_was_killed_while_it_loaded_goes_and_that_of_a_living_one_stays(
    soft_bundle: Path, place: Place, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, fetch_folder = put(place, soft_bundle), storage.fetch_folder
    young, left, living = (temporary / f"natix-bundle-{name}" for name in ("young", "left", "living"))
    for folder in (young, left):
        (folder / "bundle").mkdir(parents=True)
    os.utime(left, (0, 0))  # young may be of a process that has not locked it yet
    seen: list[set[Path]] = []

    def fetch(uri: str, folder: Path) -> Path:
        fetched = fetch_folder(uri, folder)
        os.utime(folder.parent, (0, 0))
        seen.append({each for each in temporary.iterdir() if not each.samefile(folder.parent)})
        if len(seen) == 1:
            folder.parent.rename(living)
            open_bundle(address)  # of another process
            living.rename(folder.parent)
        return fetched

    monkeypatch.setattr(storage, "fetch_folder", fetch)
    open_bundle(address)
    assert seen == [{young}, {young, living}]
    assert list(temporary.iterdir()) == [young]


def test_what_is_wrong_with_a_bundle_in_a_bucket_is_said_of_its_address(
    soft_bundle: Path, place: Place, temporary: Path, tmp_path: Path
) -> None:
    half = Path(shutil.copytree(soft_bundle, tmp_path / "half"))
    (half / "bundle.json").unlink()
    cut = Path(shutil.copytree(soft_bundle, tmp_path / "cut"))
    (cut / "model.onnx").write_bytes(b"no model")
    other = changed_bundle(soft_bundle, tmp_path / "other", "golden/golden.json", logits=[[0.5, 0.1]] * 8)
    cases: list[tuple[str, type[NatixError]]] = [
        (place.uri("nothing"), StorageError),
        (put(place, half, "half"), ContractError),
        (put(place, cut, "cut"), ContractError),
        (put(place, other, "other"), BundleError),
    ]
    for address, kind in cases:
        with pytest.raises(kind) as error:
            open_bundle(address)
        assert address in str(error.value) and str(temporary) not in str(error.value), error.value
    assert not list(temporary.iterdir())


def test_no_room_for_what_is_fetched_is_one_line(
    soft_bundle: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(
        StorageError, match=r"mem://street/bundles/first cannot be fetched to /proc/nowhere/natix-bundle-\w+: No"
    ):
        open_bundle(put(place, soft_bundle))


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("gs://street", "must read gs://bucket/path"),
        ("s3://Street/first", "must name a bucket"),
        ("https://street/first", "must be a local path, not an address"),
    ],
)
def test_an_address_that_is_no_place_is_refused_before_anything_is_asked(address: str, rule: str) -> None:
    result = CliRunner().invoke(app, ["serve", "--bundle", address])
    assert isinstance(result.exception, ConfigError) and str(result.exception).startswith(f"{address} {rule}")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_the_command_fetches_and_serves_without_a_home(
    soft_bundle: Path, bundle: Bundle, files: list[Path], temporary: Path, tmp_path: Path, scheme: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    store: Cloud | Simple = request.getfixturevalue("cloud" if scheme == "gs" else "simple")
    address = put(CloudStorage(store) if isinstance(store, Cloud) else SimpleStorage(store), soft_bundle)
    env = {name: value for name, value in os.environ.items() if name != "HOME" and not name.startswith("XDG")}
    with served(address, tmp_path / "log", env={**env, "TMPDIR": str(temporary)}) as process:
        assert f"Serving natix from {address} on" in process.log.read_text()
        assert not list(temporary.iterdir())
        with closing(http.client.HTTPConnection("127.0.0.1", process.port, timeout=20)) as client:
            client.request("POST", PREDICT, json.dumps(request_of(files[:2])))
            assert json.loads(client.getresponse().read()) == {"predictions": printed(bundle, files[:2])}
