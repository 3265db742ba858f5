"""Being told to stop: SIGTERM, from an orchestrator or `kill`, and SIGINT, from Ctrl-C, end a block in good order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stoppable(code: int | None = None) -> Iterator[None]:
    """Within the block SIGTERM and SIGINT raise `SystemExit`; after it they are taken as before.

    For the main thread, which alone may set how signals are taken.

    Args:
        code: The exit code; None is 128 + number, which a shell would give.
    """

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number if code is None else code)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
