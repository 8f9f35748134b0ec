"""Models that take images of one size only: the image is resized to it, and the maps are resized back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def resize_image(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring images ``(B, C, H, W)`` to a size, without aliasing."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def resize_maps(maps: Sequence[Tensor], strides: Sequence[int], size: tuple[int, int]) -> list[Tensor]:
    """Bring maps ``(B, C_i, H_i, W_i)`` that lie over a whole image of ``size`` to one cell for each of its strides.

    The strides should divide the size, so that cells lie where their stride says: pad the image first.
    """
    return [
        F.interpolate(m, (-(-size[0] // s), -(-size[1] // s)), mode="bilinear", align_corners=False)
        for m, s in zip(maps, strides, strict=True)
    ]
