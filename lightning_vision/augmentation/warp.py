"""Images and class maps moved together along affine maps: the one place where they are resampled so."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.augmentation.rows import put, taken
from lightning_vision.processor import IN_CACHE


def warp(
    image: Tensor, target: Tensor | None, matrix: Tensor, chosen: Tensor, fill: int, ignored: int | None
) -> tuple[Tensor, Tensor | None]:
    """Resample some images of a batch; a class map moves with its image.

    Places are in pixels from the image's centre, x to the right and y down. Images are interpolated bilinearly and
    rounded; class maps take the nearest pixel. Nothing is smoothed where a map shrinks, as in torchvision's ``affine``;
    along its border an image fades into ``fill`` (torchvision fades it twice where ``fill`` is given).

    Args:
        image: uint8 ``(B, C, H, W)``, any number of channels.
        target: Class map ``(B, H, W)`` with ids below 2**24, or anything else (left as it is).
        matrix: float32 ``(B, 2, 3)``, on the CPU: from the centre of a new pixel to a place in the old image.
        chosen: bool ``(B,)``, on the CPU: the images that are resampled. The others stay bit by bit.
        fill: Value outside the old image, in all channels.
        ignored: Value of a class map outside the old image.

    Raises:
        ValueError: There is a class map and no value for what lies outside of it.
    """
    mask = target if target is not None and target.ndim == 3 else None
    if mask is not None and ignored is None:
        raise ValueError("a class map that is moved needs a value for what comes in from outside")
    rows = chosen.nonzero().flatten()
    if not len(rows):
        return image, target
    count, (height, width) = len(rows), image.shape[-2:]
    on_cpu = image.device.type == "cpu"
    # As many images at once as stay in the processor's cache from one operation to the next.
    together = max(1, IN_CACHE // image[:1].numel()) if on_cpu else count
    warped, moved = image.clone(), target if mask is None else mask.clone()
    # Pixels to halves of the image; to the device without waiting for it.
    halves = torch.tensor([[2 / width], [2 / height]])
    matrix = (matrix[rows] * halves).to(image.device, non_blocking=True)
    for part, maps in zip(rows.split(together), matrix.split(together), strict=True):
        grid = _grid(maps, height, width)
        pixels = F.grid_sample(taken(image, part).float().sub_(fill), grid, align_corners=False).add_(fill).round_()
        # To uint8 processors go faster by way of whole numbers.
        put(warped, part, pixels.to(torch.int16).to(torch.uint8))
        if mask is not None and moved is not None and ignored is not None:
            ids = taken(mask, part)[:, None].float().sub_(ignored)
            ids = F.grid_sample(ids, grid, mode="nearest", align_corners=False).add_(ignored)
            put(moved, part, ids[:, 0].to(mask.dtype))
    return warped, moved


def rotation(angle: Tensor) -> Tensor:
    """Matrices ``(B, 2, 3)`` that turn images about their centres against the clock, of ``(B,)`` radians."""
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return torch.stack((cos, -sin, none, sin, cos, none), 1).view(-1, 2, 3)


def _grid(matrix: Tensor, height: int, width: int) -> Tensor:
    """Where each new pixel comes from, as ``grid_sample`` reads it: ``(B, H, W, 2)``, -1 and 1 are the edges.

    All x lie behind each other, then all y: made in a third of the time of ``affine_grid``'s pairs, and sampled in the
    same.
    """
    x = torch.arange(width, device=matrix.device) - (width - 1) / 2
    y = torch.arange(height, device=matrix.device) - (height - 1) / 2
    along, down, shift = matrix[..., None].unbind(2)
    across, upright = along * x + shift, down * y
    return (across[:, :, None] + upright[..., None]).permute(0, 2, 3, 1)
