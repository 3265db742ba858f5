"""A secret of Google's Secret Manager, read in code: Vertex Pipelines can give a task none as an environment variable.

Its REST interface is spoken with google-auth, which google-cloud-storage brings along; the client library was rejected,
a dependency for one request. The value is handed on as pydantic's `SecretStr`, which shows itself as stars, and is put
neither into the environment, where every child would see it, nor into an error. A secret that does not exist is no
error, because an open backbone needs no token. SECRET_MANAGER_EMULATOR_HOST names a stand-in.
"""

import base64
import os
import re
from typing import Any

from pydantic import SecretStr

from natix_lib import grammar
from natix_lib.errors import ConfigError, StorageError
from natix_lib.repeats import PASSING, Away, google_credentials, google_passes, repeated

HOST = "https://secretmanager.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
REASONS = {
    400: "it is disabled or destroyed: add a version to it",
    401: "the credentials are not accepted",
    403: "grant the task's service account roles/secretmanager.secretAccessor, and enable the Secret Manager API",
}


def read(name: str) -> SecretStr | None:
    """Read a secret.

    Args:
        name: The secret's id, or `projects/PROJECT/secrets/ID[/versions/VERSION]`; the project of an id is the one that
            the task runs in (CLOUD_ML_PROJECT_ID, which Vertex sets) or else the credentials', and the version is the
            latest.

    Returns:
        Its value without the white space around it; None, and a line is printed, when there is no such secret.

    Raises:
        ConfigError: If no secret can have that name.
        StorageError: If it cannot be read, is damaged, or holds anything but one word.
    """
    try:
        grammar.secret_manager_name(name)
    except ValueError as error:
        raise ConfigError(f"the secret's name {error}, got {name!r}") from error
    try:
        import google_crc32c
        import requests
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import AuthorizedSession
    except ModuleNotFoundError as error:
        raise StorageError("Secret Manager needs google-cloud-storage: pip install 'natix[gcs]'") from error
    host = os.environ.get("SECRET_MANAGER_EMULATOR_HOST") or HOST
    credentials, project = _credentials(host)
    version = _version(name, project)

    def ask() -> Any:
        try:
            with AuthorizedSession(credentials) as session:
                answer = session.get(f"{host}/v1/{version}:access", timeout=60)
        except (GoogleAuthError, requests.RequestException) as error:
            line = f"secret {version} cannot be read: {type(error).__name__}: {error}"
            raise (Away if google_passes(error) else StorageError)(line) from error
        if answer.status_code in PASSING:
            raise Away(f"secret {version} cannot be read: Secret Manager answered {answer.status_code}")
        return answer

    answer = repeated(ask)
    if answer.status_code == 404:
        print(f"secret {version} does not exist: going on without a token", flush=True)
        return None
    if answer.status_code != 200:
        reason = REASONS.get(answer.status_code, "try again later")
        raise StorageError(f"secret {version} cannot be read: Secret Manager answered {answer.status_code}: {reason}")
    try:
        payload = answer.json()["payload"]
        data, crc32c = base64.b64decode(payload["data"], validate=True), int(payload["dataCrc32c"])
    except (ValueError, KeyError, TypeError):
        raise StorageError(f"secret {version} cannot be read: its answer is not Secret Manager's") from None
    if google_crc32c.value(data) != crc32c:
        raise StorageError(f"secret {version} does not match its crc32c")
    word = data.strip()
    if not re.fullmatch(rb"[!-~]+", word):
        raise StorageError(f"secret {version} must hold a token, one word of ASCII, and holds {len(word)} other bytes")
    return SecretStr(word.decode())


def _credentials(host: str) -> tuple[Any, str | None]:
    from google.auth import default
    from google.auth.credentials import AnonymousCredentials

    if host != HOST:
        return AnonymousCredentials(), None
    credentials: tuple[Any, str | None] = google_credentials(lambda: default(scopes=[SCOPE]), "Secret Manager")
    return credentials


def _version(name: str, project: str | None) -> str:
    """The resource name of a secret's version."""
    if not name.startswith("projects/"):
        project = os.environ.get("CLOUD_ML_PROJECT_ID") or project
        if not project:
            raise StorageError(f"no project for secret {name}: name it projects/PROJECT/secrets/{name}")
        name = f"projects/{project}/secrets/{name}"
    return name if "/versions/" in name else f"{name}/versions/latest"
