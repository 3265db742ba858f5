"""What can pass by itself is repeated inside a step, bounded, with a line each time: here stands for how long.

Whoever speaks to a service says which of its errors may pass, by raising `Away`: a name that is not resolved, a
connection that is refused or cut, no answer in time, an answer of PASSING, a token that cannot be had just now. All
else is a verdict and raised at once. To leave this to the orchestrator was rejected: KFP 2.17 repeats no step that has
failed, and a step that is repeated begins anew.

In a cluster a store, the hub or the control plane comes back without anyone's doing, and ten minutes hold its restart
or upgrade. Elsewhere a person waits and may have mistyped an address, so that a minute is enough.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from natix_lib.errors import StorageError, printable

PASSING = frozenset({408, 429, 500, 502, 503, 504})  # of HTTP: busy, or broken and about to be mended
IN_CLUSTER, ELSEWHERE = 600.0, 60.0  # seconds that one request is repeated for
DELIVERY = 6 * 3600.0  # seconds that the result of days of computing is offered for: nodes that wait cost less
FIRST, LONGEST = 1.0, 30.0  # seconds between two attempts; each wait is twice the one before
CLUSTERS = ("KUBERNETES_SERVICE_HOST", "CLOUD_ML_PROJECT_ID")  # set in every pod, and in every task of Vertex

T = TypeVar("T")


class Away(StorageError):
    """A service does not answer, or says that it cannot just now: it may pass by itself."""


def in_cluster(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process runs in a pod, or in a task of Vertex."""
    return any(environment.get(name) for name in CLUSTERS)


def limit() -> float:
    """Seconds that one request is repeated for, where this process runs."""
    return IN_CLUSTER if in_cluster() else ELSEWHERE


def repeated(call: Callable[[], T], seconds: float | None = None) -> T:
    """`call()`, again while it raises `Away`; the last time when the seconds are over.

    Args:
        call: What is asked; it may be called any number of times.
        seconds: How long it is repeated after it has failed first; None is `limit`.

    Raises:
        Away: What the last attempt has raised.
    """
    until: float | None = None
    wait = FIRST
    while True:
        try:
            return call()
        except Away as error:
            now = time.monotonic()
            until = until or now + (limit() if seconds is None else seconds)
            left = until - now
            if left <= 0:
                raise
            say(error)
            time.sleep(min(wait, left))
            wait = min(2 * wait, LONGEST)


def say(error: object) -> None:
    """Say that an error is waited out; on stderr, because what a command gives is on stdout."""
    sys.stderr.write(f"{printable(' '.join(str(error).split()))}; trying again\n")  # one write: threads say it too
    sys.stderr.flush()
