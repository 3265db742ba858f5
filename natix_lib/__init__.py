"""natix: labelled street images to a roadwork classifier that can be trusted.

`natix_lib.load` is the way in for Python. What it needs is imported when it is called, so that `import natix_lib` costs
nothing.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from natix_lib.bundle.runtime import Bundle

__version__ = "0.1.0"


def load(bundle: str | PathLike[str]) -> Bundle:
    """Open a bundle to score images with; torch is not needed.

    >>> import natix_lib
    >>> bundle = natix_lib.load("runs/first/bundle")
    >>> prediction = bundle.predict("street.jpg")
    >>> prediction.label, prediction.accepted
    ('Roadwork', True)
    >>> [each.label for each in bundle.predict(["street.jpg", "field.jpg"])]
    ['Roadwork', 'None']

    Args:
        bundle: The bundle's folder.

    Returns:
        A bundle that has passed every check, its golden images included; see `Bundle.predict`.

    Raises:
        ContractError: If a part of it is missing, malformed, changed, too much, or contradicts another.
        BundleError: If its model cannot be opened, or does not repeat the golden logits here.
    """
    from natix_lib.bundle.runtime import Bundle

    return Bundle.load(bundle)
