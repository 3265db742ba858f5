"""Every error a person can cause, on one page.

The message is one line that names the thing, the rule and the value. The command line prints it and exits
with 2; in a pod it is the last line of the log. Whatever a message repeats of what it was given, it is one line of at
most LONGEST printable characters without a secret.
"""

import re

LONGEST = 1000  # characters; the two ends of a longer message are kept
SECRETS = (
    (re.compile(r"(?<=://)[^/\s@]+@"), "***@"),  # user and password of an address
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), "hf_***"),  # a token of the Hugging Face hub
)


def printable(text: str) -> str:
    """`text` with everything that no terminal should be sent written as an escape."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def shortened(text: str, most: int = LONGEST) -> str:
    """`text`, of which the two ends are kept where it has more than `most` characters."""
    end = most // 5
    return text if len(text) <= most else f"{text[: most - end - 5]} ... {text[-end:]}"


class NatixError(Exception):
    """Root of the errors that a person can cause and mend."""

    def __init__(self, message: str) -> None:
        """Keep `message` on one line that can be printed: the last line of a log is the whole message."""
        line = " ".join(str(message).split())
        for secret, stars in SECRETS:
            line = secret.sub(stars, line)
        super().__init__(shortened(printable(line)))


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
