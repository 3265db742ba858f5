"""Every error a person can cause, on one page.

The message is one line that names the thing, the rule and the value. The command line prints it and exits
with 2; in a pod it is the last line of the log.
"""


class NatixError(Exception):
    """Root of the errors that a person can cause and mend."""

    def __init__(self, message: str) -> None:
        """Keep `message` on one line that can be printed: the last line of a log is the whole message."""
        line = " ".join(str(message).split())
        super().__init__(
            line.encode("utf-8", "backslashreplace").decode()
        )  # file names may hold bytes that are no UTF-8


class ConfigError(NatixError):
    """A config value, key or combination is not allowed."""


class DataError(NatixError):
    """Images, labels or splits break a rule."""


class ContractError(NatixError):
    """An artifact is missing, of another schema, altered, or made from other inputs than its neighbours."""


class TrainingError(NatixError):
    """Training cannot give a classifier worth keeping."""


class CalibrationError(NatixError):
    """Logits allow no threshold, temperature or guarantee."""


class BundleError(NatixError):
    """A bundle cannot be written, or must not be trusted."""


class StorageError(NatixError):
    """A local or remote file cannot be read or written."""
