"""What JPEG does to pixels, in batch and on the device: the DCT of blocks of 8 x 8, rounded to multiples of a table.

After ITU-T T.81, with its tables of annex K scaled as libjpeg scales them by quality, in the colours of JFIF and
without chroma subsampling. The entropy coder loses nothing, so there is none.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from natix_lib.training.colour import LUMA, to_device

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)
TO_YCC = (LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF 1.02
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
LEVEL = (((128.0,),), ((0.0,),), ((0.0,),))  # what Y is shifted by, (3, 1, 1)
COSINES = [
    [math.sqrt((1 if k == 0 else 2) / 8) * math.cos((2 * i + 1) * k * math.pi / 16) for i in range(8)] for k in range(8)
]


def tables(quality: Tensor) -> Tensor:
    """The steps that coefficients are rounded to.

    Args:
        quality: 1 to 100 for each image, (n,).

    Returns:
        float32 (n, 3, 8, 8), those of Y, Cb and Cr.
    """
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    base = torch.tensor((LUMINANCE, CHROMINANCE, CHROMINANCE), dtype=torch.float32)
    return ((base * scale[:, None, None, None] + 50) / 100).floor().clamp(1, 255)


def compressed(pixels: Tensor, steps: Tensor) -> Tensor:
    """Pixels after one JPEG compression.

    Args:
        pixels: float32 (n, 3, H, W) in [0, 1].
        steps: What `tables` gives for each image, on the device of `pixels`.

    Returns:
        float32 (n, 3, H, W) in [0, 1].
    """
    n, _, height, width = pixels.shape
    made = (to_device(torch.tensor(matrix), pixels.device) for matrix in (COSINES, TO_YCC, TO_RGB, LEVEL))
    cosines, to_ycc, to_rgb, level = made
    whole = pad(255 * pixels, (0, -width % 8, 0, -height % 8), mode="replicate")
    rows, columns = whole.shape[2] // 8, whole.shape[3] // 8
    planes = (_turned(whole, to_ycc) - level).round()
    blocks = planes.reshape(n, 3, rows, 8, columns, 8).transpose(3, 4)
    steps = steps[:, :, None, None]
    kept = (cosines @ blocks @ cosines.T / steps).round() * steps
    planes = (cosines.T @ kept @ cosines).transpose(3, 4).reshape(whole.shape).round().clamp(-128, 127)
    back = _turned(planes + level, to_rgb)
    return (back[:, :, :height, :width].round() / 255).clamp(0, 1)


def _turned(planes: Tensor, matrix: Tensor) -> Tensor:
    """Planes (n, 3, H, W) in other colours."""
    one, two, three = (matrix[:, i, None, None] * planes[:, i, None] for i in range(3))
    return one + two + three
