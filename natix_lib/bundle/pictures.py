"""What Python hands a bundle to look at: the path of a file, a file's bytes, an array or a Pillow image.

Arrays are uint8 alone, as decoders give them: floats come as [0, 1], [0, 255] and normalised, and a guess would score
other pictures than were meant. An array of several pictures is refused for the same reason, (3, 224, 3) being one too.
"""

import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natix_lib.data.decode import MAX_PIXELS, decode, decode_file
from natix_lib.errors import DataError
from natix_lib.transform import require_shape, upright_rgb

Opener = Callable[[int], Image.Image]  # opens a picture, upright RGB, of which a shorter side of that is enough
Picture = str | PathLike[str] | bytes | NDArray[np.uint8] | Image.Image
KINDS = (str, PathLike, bytes, np.ndarray, Image.Image)
_LOADING = Lock()  # one Pillow image may be handed over twice, and is not to be read by two threads


def open_picture(picture: Picture, shorter_side: int) -> Image.Image:
    """An upright RGB image that a transform takes.

    Args:
        picture: A path, or a file's bytes, of a format of `data.decode`; an array uint8 (H, W, 3), RGB, or (H, W),
            grey; or a Pillow image of any mode.
        shorter_side: As `data.decode.decode` takes it, pixels.

    Raises:
        DataError: With the reason alone.
    """
    if isinstance(picture, str | PathLike):
        return decode_file(Path(os.fsdecode(picture)), shorter_side)
    if isinstance(picture, bytes):
        return decode(picture, MAX_PIXELS, shorter_side)
    image = _of_array(picture) if isinstance(picture, np.ndarray) else picture
    if not isinstance(image, Image.Image):
        raise DataError(f"a picture must be a path, bytes, an array or a Pillow image, it is a {type(image).__name__}")
    require_shape(*image.size)
    try:
        with _LOADING:
            image.load()
        return upright_rgb(image)
    except (OSError, SyntaxError, ValueError) as error:  # a file that cannot be read to its end, or that was closed
        raise DataError(f"cannot be decoded: {error}") from error


def _of_array(array: NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or not array.size:
        raise DataError(
            f"an array must be one picture, uint8 of shape (H, W, 3) or (H, W), it is {array.dtype} {array.shape}"
        )
    return Image.fromarray(array)
