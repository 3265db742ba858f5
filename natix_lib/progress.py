"""Progress of a step as lines of a log: a pod has no terminal, and `natix run` draws its bar from the same lines."""

import time


class Lines:
    """Print what is done, at most once in `seconds` and at the end of each piece of work."""

    def __init__(self, seconds: float = 2.0) -> None:
        """Print at most one progress line in `seconds`."""
        self.seconds = seconds
        self._last = 0.0

    def progress(self, what: str, done: int, total: int) -> None:
        """`what: done/total`."""
        now = time.monotonic()
        if done == total or now - self._last >= self.seconds:
            self._last = now
            self.say(f"{what}: {done}/{total}")

    def say(self, line: str) -> None:
        """Print a line at once."""
        print(line, flush=True)
