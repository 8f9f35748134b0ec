"""What is done to colours: whole batches at once, each image by its own amount, on uint8 and rounded once.

All functions take colours alone, uint8 ``(B, 1, H, W)`` (grey) or ``(B, 3, H, W)`` (RGB), and most a float32 amount
``(B,)``; they return new tensors. What depends on nothing but a pixel's own value is looked up in a table of the 256
values. They do as torchvision's functions of the same names, which cut off the decimals that are rounded here.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Share of red, green and blue in luma (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


def look_up(colours: Tensor, table: Tensor) -> Tensor:
    """Replace every value by that of a table: float ``(B, 256)``, or ``(B, C, 256)`` with one for each channel.

    The table is rounded in place.
    """
    table = to_uint8(table)
    table = table if table.ndim == 3 else table[:, None]
    values = colours.flatten(2)
    return table.expand(-1, values.shape[1], -1).gather(2, values.long()).view_as(colours)


def adjust_brightness(colours: Tensor, factor: Tensor) -> Tensor:
    """Multiply by a factor: 0 is black, 1 changes nothing."""
    return look_up(colours, _values(factor) * factor[:, None])


def adjust_contrast(colours: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distance to the image's mean luma by a factor: 0 is grey all over, 1 changes nothing."""
    mean = colours.mean((2, 3), dtype=torch.float32)
    if mean.shape[1] == 3:
        mean = mean @ mean.new_tensor(LUMA)[:, None]
    return look_up(colours, mean + factor[:, None] * (_values(factor) - mean))


def gaussian_blur(colours: Tensor, kernel_size: int, sigma: Tensor) -> Tensor:
    """Blur by a Gaussian of ``sigma`` pixels that is cut off outside of a square; images are mirrored at their edges.

    An image may be smaller than the square: it is mirrored as often as needed.
    """
    radius = kernel_size // 2
    distance = torch.arange(radius + 1, dtype=torch.float32, device=colours.device)
    weights = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)
    weights = (weights / (2 * weights.sum(1, keepdim=True) - 1)).view(len(sigma), radius + 1, 1, 1, 1)
    pixels = colours.float()
    for axis in (2, 3):
        size = colours.shape[axis]
        mirrored = pixels.index_select(axis, _mirrored(size, radius, pixels.device))
        pixels = mirrored.narrow(axis, radius, size) * weights[:, 0]
        for away in range(1, radius + 1):
            before, after = mirrored.narrow(axis, radius - away, size), mirrored.narrow(axis, radius + away, size)
            pixels.addcmul_(before + after, weights[:, away])
    return to_uint8(pixels)


def _values(like: Tensor) -> Tensor:
    return torch.arange(256, dtype=torch.float32, device=like.device)


def _mirrored(size: int, radius: int, device: torch.device) -> Tensor:
    """Places from ``-radius`` to ``size + radius``, those outside mirrored at the outermost pixels."""
    if size == 1:
        return torch.zeros(1 + 2 * radius, dtype=torch.int64, device=device)
    place = torch.arange(-radius, size + radius, device=device).remainder(2 * size - 2)
    return place.minimum(2 * size - 2 - place)


def to_uint8(pixels: Tensor) -> Tensor:
    """Round floats from 0 to 255 in place, cut off what lies outside, and return them as uint8."""
    # To uint8 processors go faster by way of whole numbers.
    return pixels.round_().clamp_(0, 255).to(torch.int16).to(torch.uint8)
