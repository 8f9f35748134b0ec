"""A mask file becomes class ids, aligned with its image: nearest neighbour only, no value is ever mixed."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_vision.data.decode import crop_or_pad, orient
from lightning_vision.data.mask_classes import MaskClasses
from lightning_vision.data.mask_shape import same_aspect
from lightning_vision.data.placement import SCALED, Resize
from lightning_vision.errors import DataError
from lightning_vision.types import TargetSpec


def decode_mask(
    path: str | os.PathLike[str],
    target: TargetSpec,
    size: tuple[int, int] | None = None,
    image_size_original: tuple[int, int] | None = None,
    *,
    resize: Resize = SCALED,
    out: Tensor | None = None,
) -> Tensor:
    """Decode a mask to class ids ``0 .. num_classes - 1`` and ``ignore_index``.

    The EXIF orientation is applied. ``interpolate`` takes the nearest pixel by centres (torch's ``nearest-exact``),
    which lies where the bilinear resize of the image looks. The other methods cut and pad as the image is; a border
    is ``ignore_index``, or repeats the edge if nothing is ignored.

    Args:
        path: Palette PNG (the index counts, unless the target goes by colours), grey image of ids or to be cut in two,
            colour-coded image, one-bit image, or ``.npy``.
        target: Classes, ignored value, and what the values mean.
        size: Height and width of the result; None = the file's own.
        image_size_original: Height and width of the image's file after its EXIF orientation, to compare with.
        resize: How the size is reached.
        out: uint8 ``(H, W)`` to write to; a new tensor if None.

    Returns:
        uint8 ``(H, W)``.

    Raises:
        DataError: Unreadable, a value that is no class, or a shape that does not fit the image; with the path.
    """
    path = os.fspath(path)
    ids = orient(*MaskClasses(target).read(path))
    if image_size_original is not None and not same_aspect((ids.shape[0], ids.shape[1]), image_size_original):
        height, width = image_size_original
        raise DataError(
            f"{path}: the mask does not fit its image",
            given=f"a mask of {ids.shape[0]} x {ids.shape[1]} pixels (height x width), an image of {height} x {width}",
            expected="the same size, or the same aspect to within a pixel",
        )
    if size is not None:
        # Crops are counted in the image's pixels.
        file = image_size_original or (ids.shape[0], ids.shape[1])
        ids = resize_nearest(ids, resize.scaled(file, size))
        if ids.shape != tuple(size):
            ids = crop_or_pad(ids, size, resize, _border(target))
    if out is None:
        return torch.from_numpy(np.array(ids))
    np.copyto(out.numpy(), ids)
    return out


def resize_nearest(ids: npt.NDArray[np.uint8], size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Resize ``(H, W)``: pixel i of n takes the source pixel that covers its centre, ``floor((i + 1/2) * N / n)``."""
    if ids.shape == tuple(size):
        return ids
    rows, cols = ((2 * np.arange(n) + 1) * have // (2 * n) for have, n in zip(ids.shape, size, strict=True))
    return ids[rows][:, cols]


def _border(target: TargetSpec) -> int | None:
    return target.ignore_index if target.ignore_index is not None and 0 <= target.ignore_index <= 255 else None
