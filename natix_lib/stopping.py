"""Being told to stop: SIGTERM, from an orchestrator or `kill`, and SIGINT, from Ctrl-C, end a block in good order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block SIGTERM and SIGINT raise `SystemExit(128 + number)`, the exit code that a shell would give.

    For the main thread, which alone may set how signals are taken.
    """

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
