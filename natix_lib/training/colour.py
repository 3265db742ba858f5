"""Colour and blur of batches of pixels, on any device: what the views of training and the crops of adaptation share.

Every image's result is that of the image alone, on a CPU to the last bit, whatever else is in the batch.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in Y, ITU-R BT.601

BLUR_RADIUS = 4  # pixels at 224, the 9-pixel kernel of DINO
SIGMA_OF_BLUR = (0.1, 2.0)  # pixels at 224, DINOv2's (arXiv 2304.07193)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on `device`, without waiting for a GPU."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def shade(pixels: Tensor, luma: Tensor) -> Tensor:
    """The brightness of pixels (n, 3, H, W) as (n, 1, H, W), weights of red, green and blue being `luma`, (3,)."""
    red, green, blue = pixels.unbind(dim=1)
    return (red * luma[0] + green * luma[1] + blue * luma[2])[:, None]


def mixed(pixels: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """`share` of the pixels and 1 - share of another picture, clipped to [0, 1]; a share above 1 goes away from it."""
    return (other + share * (pixels - other)).clamp(0, 1)


def blurred(pixels: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur of pixels (n, 3, H, W); edges are repeated.

    Args:
        pixels: The pixels.
        sigma: Standard deviation for each image in pixels, (n,), 0 for none.
        radius: Where the kernel ends, pixels.
    """
    n, channels = pixels.shape[:2]
    offset = torch.arange(-radius, radius + 1, device=pixels.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offset / sigma.clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    flat = pad(pixels, (radius, radius, radius, radius), mode="replicate").reshape(
        1, n * channels, *[side + 2 * radius for side in pixels.shape[2:]]
    )
    flat = conv2d(flat, kernel[:, None, :, None], groups=n * channels)
    flat = conv2d(flat, kernel[:, None, None, :], groups=n * channels)
    return flat.reshape(pixels.shape)
