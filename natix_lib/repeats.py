"""What can pass by itself is repeated inside a step, bounded, with a line each time: here stands for how long.

Whoever speaks to a service says which of its errors may pass, by raising `Away`: a name that is not resolved, a
connection that is refused or cut, no answer in time, an answer of PASSING, a token that cannot be had just now. All
else is a verdict and raised at once. To leave this to the orchestrator was rejected: KFP 2.17 repeats no step that has
failed, and a step that is repeated begins anew.

A certificate that does not verify is a verdict: who has mended it starts anew. What of Google's errors may pass stands
here too, because two rooms that may not know each other ask its services: Cloud Storage and Secret Manager.

In a cluster a store, the hub or the control plane comes back without anyone's doing, and ten minutes hold its restart
or upgrade. Elsewhere a person waits and may have mistyped an address, so that a minute is enough.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from http.client import HTTPException
from typing import TypeVar

from natix_lib.errors import StorageError

PASSING = frozenset({408, 429, 500, 502, 503, 504})  # of HTTP: busy, or broken and about to be mended
IN_CLUSTER, ELSEWHERE = 600.0, 60.0  # seconds that one request is repeated for
DELIVERY = 6 * 3600.0  # seconds that the result of days of computing is offered for: nodes that wait cost less
FIRST, LONGEST = 1.0, 30.0  # seconds between two attempts; each wait is twice the one before
CLUSTERS = ("KUBERNETES_SERVICE_HOST", "CLOUD_ML_PROJECT_ID")  # set in every pod, and in every task of Vertex

METADATA_SECONDS = 60.0  # within which a pod's metadata server answers, and credentials are there
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"  # in OpenSSL's line, which every library repeats in its own

# Who works with several threads sets it in each, so that none of them waits for a service when the work has ended.
STOP: ContextVar[threading.Event] = ContextVar("STOP", default=threading.Event())  # noqa: B039 - nobody sets this one

T = TypeVar("T")


class Away(StorageError):
    """A service does not answer, or says that it cannot just now: it may pass by itself."""


def in_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process runs in a pod, or in a task of Vertex."""
    return any(environment.get(name) for name in CLUSTERS)


def limit() -> float:
    """Seconds that one request is repeated for, where this process runs."""
    return IN_CLUSTER if in_cluster() else ELSEWHERE


def repeated(call: Callable[[], T], seconds: float | None = None, received: Callable[[], int] = lambda: 0) -> T:
    """`call()`, again while it raises `Away`; the last time when the seconds are over, or `STOP` of this thread is set.

    Args:
        call: What is asked; it may be called any number of times.
        seconds: How long it is repeated after it has failed first; None is `limit`.
        received: How much of the answer is here; when it has grown, the failure counts as the first: a long transfer
            may be cut many times.

    Raises:
        Away: What the last attempt has raised.
    """
    until, wait, before = 0.0, FIRST, -1
    while True:
        try:
            return call()
        except Away as error:
            now, here = time.monotonic(), received()
            if here > before:
                until, wait, before = now + (limit() if seconds is None else seconds), FIRST, here
            left = until - now
            if left <= 0 or STOP.get().is_set():
                raise
            say(error)
            if STOP.get().wait(min(wait, left)):
                raise
            wait = min(2 * wait, LONGEST)


def say(error: StorageError) -> None:
    """Say that an error is waited out; on stderr, because what a command gives is on stdout."""
    sys.stderr.write(f"{error}; trying again\n")  # one write: threads say it too
    sys.stderr.flush()


def trusted(error: BaseException) -> bool:
    """Whether an error is any but a certificate that does not verify; the libraries call both a connection's."""
    return UNTRUSTED not in str(error)


def google_passes(error: BaseException) -> bool:
    """Whether an error of Google's clients, or of what they stand on, may pass by itself."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import RefreshError, TransportError
    from google.cloud.storage.exceptions import InvalidResponse
    from requests import exceptions
    from urllib3.exceptions import HTTPError

    if isinstance(error, GoogleAPICallError):
        return error.code in PASSING
    if isinstance(error, InvalidResponse):
        return error.response.status_code in PASSING
    if isinstance(error, RefreshError):  # the metadata server's are made of what its transport has raised
        return bool(error.retryable) or (isinstance(error.__cause__, TransportError) and trusted(error))
    passing = exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError
    below = ConnectionError, TimeoutError, HTTPException, HTTPError
    return isinstance(error, (TransportError, *below, *passing)) and trusted(error)


def google_credentials(find: Callable[[], T], service: str) -> T:
    """What `find` gives with Google's credentials; a pod's metadata server may begin after the pod.

    Raises:
        StorageError: If there are none.
    """
    from google.auth.exceptions import DefaultCredentialsError

    def attempt() -> T:
        try:
            return find()
        except (DefaultCredentialsError, OSError) as error:
            raise (Away if in_cluster() else StorageError)(f"no credentials for {service}: {error}") from error

    return repeated(attempt, METADATA_SECONDS)
