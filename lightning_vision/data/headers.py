"""Size and channels of an image file from its header: no pixel is decoded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lightning_vision.data.imagefile import (
    check_pixels,
    exif_orientation,
    load_array,
    open_image,
    orientation_to_apply,
    reason,
)
from lightning_vision.errors import DataError

IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga", ".ico", ".jp2", ".avif", ".npy",
))  # fmt: skip

_CHANNELS = {"1": 1, "L": 1, "I": 1, "F": 1, "LA": 2, "La": 2, "PA": 4, "RGBA": 4, "RGBa": 4}
_BITS = {"1": 1, "I": 32, "F": 32}


@dataclass(frozen=True)
class Header:
    """What the first bytes of an image file tell.

    Args:
        height: Pixels, after the EXIF orientation is applied.
        width: Pixels, after the EXIF orientation is applied.
        num_channels: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha. CMYK and YCbCr count as 3; a palette as
            what its colours are.
        mode: Pillow's mode (``L``, ``P``, ``RGB``, ``I;16`` ...), or the dtype of an array file.
        bits: Bits per channel.
        format: ``JPEG``, ``PNG``, ``NPY`` ...
        orientation: EXIF orientation, 1 to 8; 1 = as stored. 5 to 8 swap height and width.
    """

    height: int
    width: int
    num_channels: int
    mode: str
    bits: int
    format: str
    orientation: int = 1


def is_image_name(name: str) -> bool:
    """True if the file name ends like an image that can be read, and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def array_layout(shape: tuple[int, ...]) -> tuple[int, int, int, bool] | None:
    """Read an array's shape as an image: ``(height, width, channels, channels_first)``, or None if it is none.

    ``(H, W)`` is grey. With three axes the one of 1 to 4 is the channels; if both the first and the last are, the
    last is, because files hold ``(H, W, C)``.
    """
    if any(n < 1 for n in shape):
        return None
    if len(shape) == 2:
        return shape[0], shape[1], 1, False
    if len(shape) == 3 and shape[2] <= 4:
        return shape[0], shape[1], shape[2], False
    if len(shape) == 3 and shape[0] <= 4:
        return shape[1], shape[2], shape[0], True
    return None


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read size and channels of an image file (all that Pillow opens, and ``.npy``) without decoding it.

    A PNG's EXIF chunk counts if it stands before the pixels, where every writer of note puts it.

    Raises:
        DataError: With the path: missing, empty, no image, or beyond Pillow's limit against decompression bombs.
    """
    path = os.fspath(path)
    try:
        if path.lower().endswith(".npy"):
            return _npy_header(path)
        with open_image(path) as image:
            return _pillow_header(image)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly every type on broken headers
        raise DataError(f"{path}: {reason(path, error, 'damaged header')}") from error


def _pillow_header(image: Image.Image) -> Header:
    width, height = image.size
    if orientation_to_apply(image) >= 5:  # a TIFF's size is told as turned
        width, height = height, width
    mode = image.mode
    return Header(
        height=height,
        width=width,
        num_channels=_channels(image),
        mode=mode,
        bits=16 if mode.startswith("I;16") else _BITS.get(mode, 8),
        format=image.format or "",
        orientation=exif_orientation(image),
    )


def _channels(image: Image.Image) -> int:
    mode, alpha = image.mode, "transparency" in image.info
    if mode == "P":
        colours = bytes(image.palette.palette) if image.palette is not None and image.palette.mode == "RGB" else b"\0\1"
        grey = colours[0::3] == colours[1::3] == colours[2::3]
        return (1 if grey else 3) + alpha
    if mode.startswith("I;16"):
        return 1
    if image.format == "PNG" and mode == "RGBA" and "LA;16B" in [tile.args for tile in _tiles(image)]:
        return 2  # Pillow has no mode for grey and alpha of 16 bits
    channels = _CHANNELS.get(mode, 3)
    return channels + 1 if alpha and channels in (1, 3) else channels


def _tiles(image: Image.Image) -> list[Any]:
    return list(getattr(image, "tile", []))


def _npy_header(path: str) -> Header:
    array, (height, width, channels, _) = open_array(path)
    return Header(height, width, channels, mode=str(array.dtype), bits=array.dtype.itemsize * 8, format="NPY")


def open_array(path: str) -> tuple[npt.NDArray[np.generic], tuple[int, int, int, bool]]:
    """Map a ``.npy`` file of pixels; returns the array, whose values are not read yet, and its ``array_layout``.

    Raises:
        DataError: Shape or type is not that of an image, or there are too many pixels.
    """
    array = load_array(path)
    layout = array_layout(array.shape)
    if layout is None or array.dtype.kind not in "buif":
        raise DataError(
            f"{path}: an array of shape {array.shape} and type {array.dtype} is no image",
            expected="numbers of shape (H, W), (H, W, C) or (C, H, W)",
        )
    check_pixels(path, layout[0], layout[1])
    return array, layout
