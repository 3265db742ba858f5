"""From the uint8 squares that loaders cut to what a backbone takes, in batch and on the device.

Normalisation is that of `Transform.normalise`, the same operations in the same order, so evaluation views have the bits
that predict and serve compute. Augmented views are first changed as their numbers say: mirrored, then brightness,
contrast and saturation by Pillow's definitions but without rounding between them, blur, JPEG.

On a CPU the view of an image has the same bits whatever the batch that it comes in. A GPU is never waited for: which
views are blurred or compressed is known from the numbers, which are on the CPU.
"""

import math

import torch
from torch import Tensor

from natix_lib.training.colour import BLUR_RADIUS, LUMA, blurred, mixed, shade, to_device
from natix_lib.training.jpeg import compressed, tables
from natix_lib.training.precision import full_float32
from natix_lib.training.profiles import BRIGHTNESS, CONTRAST, FLIP, QUALITY, SATURATION, SIGMA
from natix_lib.transform import Transform

IN_CACHE = 2**19  # bytes of pixels that a CPU does at once; a batch of 128 at once takes four times as long


def finished(pixels: Tensor, numbers: Tensor | None, transform: Transform, device: torch.device) -> Tensor:
    """What a backbone takes.

    Args:
        pixels: uint8 (n, S, S, 4) on the CPU: red, green, blue and a byte without a meaning.
        numbers: float32 (n, 6) of `profiles.Cuts.cut`, on the CPU; None changes nothing.
        transform: Says mean and deviation of the channels.
        device: Where the result is computed.

    Returns:
        float32 (n, 3, S, S) on `device`, normalised.
    """
    values = torch.tensor((255.0, *transform.image_mean, *transform.image_std, *LUMA))
    white, *channels = to_device(values, device).split_with_sizes((1, 3, 3, 3))
    mean, std, luma = channels
    n, side = pixels.shape[:2]
    result = torch.empty(n, 3, side, side, device=device)
    at_once = max(1, IN_CACHE // (4 * side * side) if device.type == "cpu" else n)
    for start in range(0, n, at_once):
        rows = slice(start, start + at_once)
        planes = to_device(pixels[rows], device).permute(0, 3, 1, 2)[:, :3].contiguous()
        with full_float32():  # products of JPEG and blur in TensorFloat-32 would round other pixels
            shown = planes.float().div_(white) if numbers is None else _changed(planes, numbers[rows], white, luma)
        torch.div(shown.sub_(mean[:, None, None]), std[:, None, None], out=result[rows])
    return result


def _changed(planes: Tensor, numbers: Tensor, white: Tensor, luma: Tensor) -> Tensor:
    """Planes, uint8 (n, 3, S, S), as their numbers say, in [0, 1]."""
    device, side = planes.device, planes.shape[3]
    table = to_device(numbers, device)[:, :, None, None, None]
    planes = torch.where(table[:, FLIP] > 0, planes.flip(3), planes)
    shown = planes.float().div_(white).mul_(table[:, BRIGHTNESS]).clamp_(0, 1)
    middle = shade(shown, luma).mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)  # rows first: the same on 9 threads
    shown = mixed(shown, middle, table[:, CONTRAST])
    shown = mixed(shown, shade(shown, luma), table[:, SATURATION])
    if len(some := numbers[:, SIGMA].nonzero()[:, 0]):
        rows, sigma = to_device(some, device), to_device(numbers[some, SIGMA] * side / 224, device)
        shown[rows] = blurred(shown[rows], sigma, math.ceil(BLUR_RADIUS * side / 224))
    if len(some := numbers[:, QUALITY].nonzero()[:, 0]):
        rows, steps = to_device(some, device), to_device(tables(numbers[some, QUALITY]), device)
        shown[rows] = compressed(shown[rows], steps)
    return shown
