"""What an image looks like in three numbers, so that a shift which the model's answers show can be traced to a camera.

They are taken from the image at the size that the transform first gives it, which is how ingest stores images, so that
those of VAL_CALIB and those that are scored are measured alike; of a larger file `pixels` tells the shape alone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

APPEARANCE = {
    "brightness": "mean of the grey values, 0 to 255",
    "pixels": "width x height, after the shorter side was reduced to what the transform takes",
    "sharpness": "variance of the Laplacian of the grey values: low where an image is blurred",
}
QUANTILES = (0.05, 0.5, 0.95)

Appearance = tuple[float, float, float]


def appearance(image: Image.Image) -> Appearance:
    """Brightness, pixels and sharpness of an image, in the order and the units of `APPEARANCE`.

    The sharpness is the variance of the 4-neighbour Laplacian (Pech-Pacheco et al., ICPR 2000); an image of less than
    3 pixels a side has none, 0.
    """
    grey: NDArray[np.float32] = np.asarray(image.convert("L"), dtype=np.float32)
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(grey.mean()), float(grey.size), float(laplacian.var()) if laplacian.size else 0.0


def quantiles(images: Sequence[Appearance]) -> dict[str, list[float]]:
    """Of at least one image: each of `APPEARANCE` to its `QUANTILES`, three digits after the point."""
    values = np.quantile(np.array(images, dtype=np.float64), QUANTILES, axis=0).round(3)
    return {name: values[:, column].tolist() for column, name in enumerate(APPEARANCE)}
