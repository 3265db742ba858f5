"""Secret Manager's REST interface, spoken with a stand-in on the loopback."""

import base64
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import pytest
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError, TransportError

from natix_lib import repeats, secrets
from natix_lib.errors import ConfigError, StorageError
from tests.loopback import Handler, serving

TOKEN = "hf_tokentokentoken"
LATEST = "projects/street/secrets/hf-token/versions/latest"


@dataclass
class Manager:
    """What it holds, how it answers, and what it was asked for."""

    held: dict[str, bytes] = field(default_factory=lambda: {LATEST: TOKEN.encode()})
    statuses: list[int] = field(default_factory=list)
    payload: dict[str, Any] | None = None
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, list[Manager]]]:
    """The address of the stand-in, and the place for what it holds."""

    class Secrets(Handler):
        def do_GET(self) -> None:
            name, manager = self.path.removeprefix("/v1/").removesuffix(":access"), place[-1]
            manager.asked.append(name)
            status = manager.statuses.pop(0) if manager.statuses else 200 if name in manager.held else 404
            if status != 200:
                return self.answer(status, json.dumps({"error": {"code": status, "message": "no"}}).encode())
            data = manager.held[name]
            payload = {"data": base64.b64encode(data).decode(), "dataCrc32c": str(google_crc32c.value(data))}
            return self.answer_json({"name": name, "payload": manager.payload or payload})

    place: list[Manager] = []
    with serving(Secrets) as url:
        yield url, place


@pytest.fixture
def manager(running: tuple[str, list[Manager]], monkeypatch: pytest.MonkeyPatch) -> Manager:
    url, place = running
    place.append(Manager())
    monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", url)
    monkeypatch.setenv("CLOUD_ML_PROJECT_ID", "street")
    return place[-1]


def test_an_id_is_read_from_the_project_of_the_task_and_a_resource_name_from_its_own(manager: Manager) -> None:
    manager.held["projects/other/secrets/hub/versions/3"] = b"hf_other"
    for name, value in (("hf-token", TOKEN), (LATEST, TOKEN), ("projects/other/secrets/hub/versions/3", "hf_other")):
        secret = secrets.read(name)
        assert secret is not None and secret.get_secret_value() == value
    assert manager.asked == [LATEST, LATEST, "projects/other/secrets/hub/versions/3"]
    secrets.read("projects/street/secrets/hf-token")
    assert manager.asked[-1] == LATEST


def test_the_line_end_of_a_secret_made_with_echo_is_taken_off(manager: Manager) -> None:
    manager.held[LATEST] = TOKEN.encode() + b"\n"
    secret = secrets.read("hf-token")
    assert secret is not None and secret.get_secret_value() == TOKEN


def test_a_secret_that_does_not_exist_is_none_and_one_line(manager: Manager, capsys: pytest.CaptureFixture) -> None:
    assert secrets.read("absent") is None
    shown = capsys.readouterr().out
    assert shown == "secret projects/street/secrets/absent/versions/latest does not exist: going on without a token\n"


def test_a_service_that_is_busy_is_asked_again(manager: Manager, capsys: pytest.CaptureFixture[str]) -> None:
    manager.statuses = [503, 429]
    assert secrets.read("hf-token") is not None
    assert len(manager.asked) == 3
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"secret {LATEST} cannot be read: Secret Manager answered {status}; trying again" for status in (503, 429)
    ]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "answered 403: grant the task's service account roles/secretmanager.secretAccessor"),
        (400, "answered 400: it is disabled or destroyed: add a version to it"),
        (418, "answered 418: try again later"),
    ],
)
def test_what_the_service_refuses_is_one_line(manager: Manager, status: int, message: str) -> None:
    manager.statuses = [status]
    with pytest.raises(StorageError, match=f"secret {LATEST} cannot be read: Secret Manager {message}"):
        secrets.read("hf-token")


def test_credentials_that_are_not_accepted_are_one_line(manager: Manager) -> None:
    manager.statuses = [401]
    with pytest.raises(StorageError, match=f"secret {LATEST} cannot be read: InvalidOperation"):
        secrets.read("hf-token")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"data": base64.b64encode(TOKEN.encode()).decode(), "dataCrc32c": "1"}, "does not match its crc32c"),
        ({"data": base64.b64encode(TOKEN.encode()).decode()}, "its answer is not Secret Manager's"),
        ({"data": TOKEN + "=", "dataCrc32c": "1"}, "its answer is not Secret Manager's"),
    ],
)
def test_a_damaged_answer_is_refused_and_the_token_is_not_in_the_error(
    manager: Manager, payload: dict[str, str], message: str
) -> None:
    manager.payload = payload
    with pytest.raises(StorageError, match=message) as caught:
        secrets.read("hf-token")
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("content", [b"", b"two words", b"hf_\xff"])
def test_what_is_no_token_is_refused(manager: Manager, content: bytes) -> None:
    manager.held[LATEST] = content
    with pytest.raises(StorageError, match=f"secret {LATEST} must hold a token, one word of ASCII"):
        secrets.read("hf-token")


@pytest.mark.parametrize(
    "name", ["", "a/b", "projects/p/secrets/", "projects/p/secrets/a/versions/", "a/versions/1", "ä"]
)
def test_what_is_no_name_is_refused_before_anything_is_asked(manager: Manager, name: str) -> None:
    with pytest.raises(ConfigError, match="the secret's name must be an id in Secret Manager or projects/"):
        secrets.read(name)
    assert manager.asked == []


def test_without_a_project_the_line_says_how_to_name_it(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUD_ML_PROJECT_ID")
    with pytest.raises(StorageError, match="no project for secret hf-token: name it projects/PROJECT/secrets/hf-token"):
        secrets.read("hf-token")


def test_a_service_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr(repeats, "ELSEWHERE", 0.1)
    with pytest.raises(StorageError, match=f"secret {LATEST} cannot be read: ConnectionError"):
        secrets.read(LATEST)


def test_a_token_that_the_metadata_server_cannot_give_just_now_is_asked_for_again(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Late(Credentials):
        times = 0

        def refresh(self, request: Any) -> None:
            self.times += 1
            if self.times == 1:
                raise RefreshError("the metadata server is away") from TransportError("refused")
            self.token = "token"

    monkeypatch.setattr(secrets, "_credentials", lambda host: (Late(), None))
    assert secrets.read("hf-token") is not None
    assert "the metadata server is away; trying again" in capsys.readouterr().err


def test_missing_credentials_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("SECRET_MANAGER_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with pytest.raises(StorageError, match="no credentials for Secret Manager: .*absent.json"):
        secrets.read(LATEST)


def test_the_value_shows_itself_as_stars_and_is_not_in_the_environment(manager: Manager) -> None:
    secret = secrets.read("hf-token")
    assert TOKEN not in f"{secret} {secret!r} {[secret]}"
    assert all(TOKEN not in value for value in os.environ.values())


def test_reading_a_secret_logs_nothing_of_it(manager: Manager) -> None:
    manager.statuses = [503]
    code = (
        "import logging, sys; logging.basicConfig(level=logging.DEBUG); from natix_lib import secrets;"
        "print(secrets.read('hf-token'), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "**********" in done.stderr and TOKEN not in done.stdout + done.stderr
    assert base64.b64encode(TOKEN.encode()).decode() not in done.stdout + done.stderr
