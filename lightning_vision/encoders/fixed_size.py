"""Models that take images of one size only: the image is resized to it, and the maps are resized back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.encoders.maps import ceil_div
from lightning_vision.encoders.positions import weights_of


def resize_image(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring images ``(B, C, H, W)`` to a size, without aliasing."""
    if torch.compiler.is_exporting():
        rows, columns = (
            weights_of(n, m, x.device, cubic=False).to(x.dtype) for n, m in zip(x.shape[-2:], size, strict=True)
        )
        return rows @ x @ columns.mT
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def pad_to_least(x: Tensor, least: tuple[int, int]) -> Tensor:
    """Pad the right and bottom of images ``(B, C, H, W)`` with zeros until they have the least height and width."""
    if torch.compiler.is_exporting():
        if least == (1, 1):
            return x
        bottom, right = (torch.sym_max(side, n) - n for side, n in zip(least, x.shape[-2:], strict=True))
        return F.pad(x, (0, right, 0, bottom))  # type: ignore[arg-type]  # sizes may be symbols
    bottom, right = (max(0, side - n) for side, n in zip(least, x.shape[-2:], strict=True))
    return F.pad(x, (0, right, 0, bottom)) if bottom or right else x


def resize_maps(maps: Sequence[Tensor], strides: Sequence[int], size: tuple[int, int]) -> list[Tensor]:
    """Bring maps ``(B, C_i, H_i, W_i)`` that lie over a whole image of ``size`` to one cell for each of its strides.

    The strides should divide the size, so that cells lie where their stride says: pad the image first.
    """
    return [
        F.interpolate(m, (ceil_div(size[0], s), ceil_div(size[1], s)), mode="bilinear", align_corners=False)
        for m, s in zip(maps, strides, strict=True)
    ]
