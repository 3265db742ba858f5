"""From a file's bytes to a stored image: upright, RGB, not larger than needed, with its hashes.

An image that must change becomes JPEG, quality 95 without chroma subsampling, whatever it was: PNG photographs take
ten times the space and launchers download whole data sets. A JPEG that needs no change keeps its own bytes.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from natix_lib.data.decode import decode
from natix_lib.data.windows import window_hashes
from natix_lib.files import sha256_bytes
from natix_lib.transform import at_most_shorter_side

QUALITY = 95
MAX_COMMENT = 65_533  # bytes; a JPEG segment's length has 16 bits and counts itself


@dataclass(frozen=True)
class Prepared:
    """An image as it is stored.

    Attributes:
        content: Bytes of the JPEG.
        sha256: SHA-256 of the decoded RGB pixels and their size.
        hashes: Perceptual hashes of its windows, see `windows.window_hashes`; None for an image without structure.
        width: Width in pixels.
        height: Height in pixels.
    """

    content: bytes
    sha256: str
    hashes: bytes | None
    width: int
    height: int


def prepare(content: bytes, shorter_side: int, max_pixels: int) -> Prepared:
    """Make an image ready to be stored.

    Args:
        content: Bytes of an image file.
        shorter_side: The shorter side is reduced to it, never enlarged, pixels.
        max_pixels: Refuse images with more.

    Raises:
        DataError: If it cannot be decoded, with the reason alone.
    """
    image = decode(content, max_pixels)
    if image.format != "JPEG" or min(image.size) > shorter_side:
        buffer = io.BytesIO()
        small = at_most_shorter_side(image, shorter_side)
        comment = small.info.get("comment")  # Pillow stores it, and other formats have longer ones than JPEG
        if not isinstance(comment, bytes) or len(comment) > MAX_COMMENT:
            small.info = {}
        small.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        content = buffer.getvalue()
        image = Image.open(io.BytesIO(content))
    pixels = np.asarray(image)
    digest = sha256_bytes(f"{image.width}x{image.height}".encode() + pixels.tobytes())
    return Prepared(content, digest, window_hashes(image), image.width, image.height)
