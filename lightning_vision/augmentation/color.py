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
    mean = luma(colours.mean((2, 3), keepdim=True, dtype=torch.float32)).flatten(1)
    return look_up(colours, mean + factor[:, None] * (_values(factor) - mean))


def adjust_saturation(colours: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distance to each pixel's luma by a factor: 0 is grey, 1 changes nothing. Grey images stay."""
    return to_uint8(saturate(colours.float(), _each(factor))) if colours.shape[1] == 3 else colours.clone()


def adjust_hue(colours: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue, 1 = the whole circle. Grey images stay."""
    return to_uint8(turn_hue(colours.float(), _each(turn))) if colours.shape[1] == 3 else colours.clone()


def adjust_gamma(colours: Tensor, gamma: Tensor) -> Tensor:
    """Raise values in [0, 1] to a power: below 1 shadows become lighter, 1 changes nothing."""
    return look_up(colours, 255 * (_values(gamma) / 255) ** gamma[:, None])


def grayscale(colours: Tensor) -> Tensor:
    """Take the luma for every channel."""
    return to_uint8(luma(colours.float())).expand_as(colours)


def posterize(colours: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits of each value: 0 is black, 8 changes nothing."""
    kept = (256 - 2 ** (8 - bits.long())).to(torch.uint8)
    return colours & _each(kept)


def solarize(colours: Tensor, threshold: Tensor) -> Tensor:
    """Invert values from a threshold on: 0 inverts all, 256 changes nothing."""
    values = _values(threshold)
    return look_up(colours, torch.where(values >= threshold[:, None], 255 - values, values))


def solarize_add(colours: Tensor, addition: Tensor) -> Tensor:
    """Add to the values below 128."""
    values = _values(addition)
    return look_up(colours, values + addition[:, None] * (values < 128))


def invert(colours: Tensor) -> Tensor:
    """Make dark light, and light dark."""
    return colours.bitwise_not()


def autocontrast(colours: Tensor) -> Tensor:
    """Stretch each channel's values to the whole range; a channel of one value stays."""
    pixels = colours.flatten(2)
    low, high = pixels.amin(2, keepdim=True).float(), pixels.amax(2, keepdim=True).float()
    values = _values(low)
    return look_up(colours, torch.where(high > low, (values - low) * (255 / (high - low)), values))


def equalize(colours: Tensor) -> Tensor:
    """Make all values of each channel about as frequent, by Pillow's rule, in whole numbers."""
    counts = _histogram(colours.flatten(2))
    below = counts.cumsum(2) - counts
    # The pixels that a step of one stands for; those of the highest value are not counted.
    highest = 255 - counts.flip(2).ne(0).int().argmax(2, keepdim=True)
    step = below.gather(2, highest) // 255
    table = (below + step // 2) // step.clamp(min=1)
    return look_up(colours, torch.where(step > 0, table, _values(table).long()).float())


def adjust_sharpness(colours: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distance to the smoothed image by a factor: 0 is smooth, 1 changes nothing.

    Smoothed is the mean of 3 x 3 pixels, in which the middle counts five times, as in Pillow. The outermost stay.
    """
    result = colours.clone()
    if min(colours.shape[2:]) > 2:
        pixels = colours.to(torch.int16)
        rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
        middle = pixels[:, :, 1:-1, 1:-1]
        smooth = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * middle).float().div_(13)
        result[:, :, 1:-1, 1:-1] = to_uint8(smooth.add_(_each(factor) * (middle - smooth)))
    return result


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


def _each(amount: Tensor) -> Tensor:
    return amount.view(-1, 1, 1, 1)


def _histogram(values: Tensor) -> Tensor:
    """How often each value occurs: uint8 ``(B, C, N)`` to int64 ``(B, C, 256)``."""
    groups = values.shape[:2]
    if values.device.type == "cpu":
        first = torch.arange(groups.numel(), dtype=torch.int32).mul_(256).view(*groups, 1)
        return torch.bincount((values + first).flatten(), minlength=256 * groups.numel()).view(*groups, 256)
    # There, counting in bins would wait for the device.
    ones = torch.ones((), dtype=torch.int64, device=values.device).expand(values.shape)
    return torch.zeros(*groups, 256, dtype=torch.int64, device=values.device).scatter_add_(2, values.long(), ones)


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


def luma(colours: Tensor) -> Tensor:
    """Luma ``(B, 1, H, W)`` of floats, RGB or grey, of any range."""
    if colours.shape[1] == 1:
        return colours
    red, green, blue = (share * channel for share, channel in zip(LUMA, colours.split(1, 1), strict=True))
    return red + green + blue


def saturate(colours: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distance to each pixel's luma: floats of any range, with a factor ``(B, 1, 1, 1)``."""
    gray = luma(colours)
    return gray + factor * (colours - gray)


def turn_hue(colours: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of HSV, 1 = the whole circle: floats of any range from 0, with a turn ``(B, 1, 1, 1)``."""
    red, green, blue = colours.unbind(1)
    high = torch.maximum(torch.maximum(red, green), blue)
    chroma = high - torch.minimum(torch.minimum(red, green), blue)
    across = chroma.clamp(min=torch.finfo(chroma.dtype).tiny)  # without chroma all differences are 0
    sixth = torch.where(
        red == high,
        (green - blue) / across,
        torch.where(green == high, 2 + (blue - red) / across, 4 + (red - green) / across),
    )
    # A turn of the circle is 6, and red lies at 0.
    sixth = sixth / 6 + turn[:, 0]
    sixth = (sixth - sixth.floor()) * 6
    # Each channel has the highest value near its own hue, and falls by the chroma away from it.
    near = ((sixth - 3).abs() - 1, 2 - (sixth - 2).abs(), 2 - (sixth - 4).abs())
    return torch.stack([high - chroma * (1 - k.clamp(0, 1)) for k in near], 1)
