"""Size and channels of an image file from its header: no pixel is decoded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError

from lightning_vision.errors import DataError

IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga", ".ico", ".jp2", ".avif", ".npy",
))  # fmt: skip

_ORIENTATION = 0x0112
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
        with Image.open(path) as image:
            return _pillow_header(image)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly every type on broken headers
        raise DataError(f"{path}: {reason(path, error)}") from error


def reason(path: str, error: Exception) -> str:
    """Say in a few words why ``path`` could not be read."""
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"more than {limit} pixels, Pillow's limit against decompression bombs; cut it into tiles"
    try:
        if os.path.isdir(path):
            return "is a folder, not an image"
        if os.path.getsize(path) == 0:
            return "the file is empty"
    except FileNotFoundError:
        return "no such file"
    except OSError as stat_error:
        return stat_error.strerror or str(stat_error)
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be read"
    return f"damaged header ({type(error).__name__}: {error})"


def _pillow_header(image: Image.Image) -> Header:
    width, height = image.size
    orientation = _orientation(image)
    # TIFF is turned by Pillow itself, which reports the turned size.
    if orientation >= 5 and image.format != "TIFF":
        width, height = height, width
    mode = image.mode
    return Header(
        height=height,
        width=width,
        num_channels=_channels(image),
        mode=mode,
        bits=16 if mode.startswith("I;16") else _BITS.get(mode, 8),
        format=image.format or "",
        orientation=orientation,
    )


def _orientation(image: Image.Image) -> int:
    # PngImageFile.getexif() decodes the pixels to look for a late chunk.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    value: Any = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _channels(image: Image.Image) -> int:
    mode, alpha = image.mode, "transparency" in image.info
    if mode == "P":
        colours = bytes(image.palette.palette) if image.palette is not None and image.palette.mode == "RGB" else b"\0\1"
        grey = colours[0::3] == colours[1::3] == colours[2::3]
        return (1 if grey else 3) + alpha
    if mode.startswith("I;16"):
        return 1
    channels = _CHANNELS.get(mode, 3)
    return channels + 1 if alpha and channels in (1, 3) else channels


def _npy_header(path: str) -> Header:
    import numpy as np

    array = np.load(path, mmap_mode="r", allow_pickle=False)  # maps the file, reads its header alone
    shape, dtype = array.shape, array.dtype
    layout = array_layout(shape)
    if layout is None or dtype.kind not in "buif":
        raise DataError(
            f"{path}: an array of shape {shape} and type {dtype} is no image", expected="(H, W), (H, W, C) or (C, H, W)"
        )
    height, width, channels, _ = layout
    return Header(height, width, channels, mode=str(dtype), bits=dtype.itemsize * 8, format="NPY")
