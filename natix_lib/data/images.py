"""From a file's bytes to a stored image: upright, RGB, not larger than needed, with its hashes.

An image that must change becomes JPEG, quality 95 without chroma subsampling, whatever it was: PNG photographs take
ten times the space and launchers download whole data sets. A JPEG that needs no change keeps its own bytes.

The hashes are of the pixels that are given to the encoder: equal ones make equal files, and to decode what was just
encoded would take a sixth of the time. Files are read while others are decoded, in bounded memory.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from PIL import Image

from natix_lib.cpus import cpu_threads
from natix_lib.data.ahead import ahead
from natix_lib.data.decode import decode
from natix_lib.data.windows import window_hashes
from natix_lib.errors import DataError
from natix_lib.files import sha256_bytes
from natix_lib.transform import at_most_shorter_side

AHEAD = 256  # images read, or ready to be stored, before they are asked for
AHEAD_BYTES = 2**28  # of their files; photographs of 12 megapixels take 2 to 8 MB each
QUALITY = 95


@dataclass(frozen=True)
class Prepared:
    """An image as it is stored.

    Attributes:
        content: Bytes of the JPEG.
        sha256: SHA-256 of the RGB pixels, as decoded or as they were encoded, and their size.
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
    image = decode(content, max_pixels, shorter_side)
    if image.format != "JPEG" or min(image.size) > shorter_side:
        image = at_most_shorter_side(image, shorter_side)
        content = encoded(image)
    return hashed(content, image)


def stored_image(content: bytes) -> Image.Image:
    """The picture of a stored JPEG, as RGB."""
    image = Image.open(io.BytesIO(content))
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def encoded(image: Image.Image) -> bytes:
    """An RGB image as the JPEG that is stored."""
    buffer = io.BytesIO()
    image.info = {}  # Pillow would store a comment, and other formats have longer ones than JPEG may
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def hashed(content: bytes, image: Image.Image) -> Prepared:
    """What is stored of an RGB image, by its JPEG and its pixels."""
    digest = sha256_bytes(f"{image.width}x{image.height}".encode() + image.tobytes())
    return Prepared(content, digest, window_hashes(image), image.width, image.height)


def prepare_all(
    contents: Iterable[bytes | DataError], shorter_side: int, max_pixels: int
) -> Iterator[Prepared | DataError]:
    """Make images ready to be stored, by as many threads as `cpu_threads` says.

    Args:
        contents: Bytes of image files, or why there are none; read as they are needed.
        shorter_side: As `prepare` takes it, pixels.
        max_pixels: As `prepare` takes it.

    Yields:
        For each of `contents`, in its order, the image or the reason why it cannot be used.
    """

    def one(content: bytes | DataError) -> Prepared | DataError:
        if isinstance(content, DataError):
            return content
        try:
            return prepare(content, shorter_side, max_pixels)
        except DataError as error:
            return error

    def weigh(content: bytes | DataError) -> int:
        return 0 if isinstance(content, DataError) else len(content)

    yield from ahead(one, contents, cpu_threads(), AHEAD, weigh, AHEAD_BYTES)
