"""From a file's bytes to a stored image: upright, RGB, not larger than needed, with its hashes.

An image that must change becomes JPEG, quality 95 without chroma subsampling, whatever it was: PNG photographs take
ten times the space and launchers download whole data sets. A JPEG that needs no change keeps its own bytes.
Pillow's limit against decompression bombs is off because `data.max_pixels` is checked on the header, before decoding.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.fft import dctn

from natix_lib.bundle.transform import at_most_shorter_side, upright_rgb
from natix_lib.errors import DataError
from natix_lib.files import sha256_bytes

Image.MAX_IMAGE_PIXELS = None
MAX_PIXELS = 178_956_970  # of `natix predict`; as the default of data.max_pixels
ORIENTATION = 0x0112  # EXIF
QUALITY = 95
FLAT = 2.0  # grey levels; an image that varies less has no perceptual hash worth comparing
HASH_SIDE, HASH_BLOCK = 32, 8


@dataclass(frozen=True)
class Prepared:
    """An image as it is stored.

    Attributes:
        content: JPEG bytes.
        sha256: Of the decoded RGB pixels and their size.
        phash: 64-bit DCT perceptual hash; None for an image without structure.
    """

    content: bytes
    sha256: str
    phash: int | None


def open_image(path: str | Path) -> Image.Image:
    """A decoded image file.

    Raises:
        DataError: If it is missing, empty, no image, truncated or larger than MAX_PIXELS.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"image {path}: {error.strerror or error}") from error
    try:
        return decode(content, MAX_PIXELS)
    except DataError as error:
        raise DataError(f"image {path}: {error}") from error


def decode(content: bytes, max_pixels: int) -> Image.Image:
    """Decode an image wholly, its size checked first.

    Raises:
        DataError: With the reason alone.
    """
    if not content:
        raise DataError("the file is empty")
    try:
        image = Image.open(io.BytesIO(content))
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(f"{width} x {height} pixels are more than max_pixels {max_pixels}")
        if image.format == "EPS":
            raise DataError("EPS is a program for Ghostscript, not an image")
        image.load()
        return image
    except UnidentifiedImageError as error:
        raise DataError("no image format is known for it") from error
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever broken bytes lead them to
        raise DataError(f"cannot be decoded: {error}") from error


def prepare(content: bytes, shorter_side: int, max_pixels: int) -> Prepared:
    """Make an image ready to be stored.

    Args:
        content: A file's bytes.
        shorter_side: The shorter side is reduced to it, never enlarged, pixels.
        max_pixels: Refuse images with more.

    Raises:
        DataError: If it cannot be decoded, with the reason alone.
    """
    image = decode(content, max_pixels)
    kept = (
        image.format == "JPEG"
        and image.mode == "RGB"
        and min(image.size) <= shorter_side
        and image.getexif().get(ORIENTATION, 1) == 1
    )
    if not kept:
        buffer = io.BytesIO()
        small = at_most_shorter_side(upright_rgb(image), shorter_side)
        small.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        content = buffer.getvalue()
        image = Image.open(io.BytesIO(content))
    pixels = np.asarray(image)
    digest = sha256_bytes(f"{image.width}x{image.height}".encode() + pixels.tobytes())
    return Prepared(content, digest, perceptual_hash(image))


def perceptual_hash(image: Image.Image) -> int | None:
    """64-bit DCT hash: which of the 8 x 8 lowest frequencies of the 32 x 32 grey image are above their median.

    Returns:
        0 <= hash < 2**64, or None when the image is flat: its hash would be noise and join unrelated images.
    """
    grey = np.asarray(image.convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    if grey.std() < FLAT:
        return None
    low = dctn(grey, norm="ortho")[:HASH_BLOCK, :HASH_BLOCK].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
