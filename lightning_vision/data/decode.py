"""An image file becomes uint8 pixels of one shape.

JPEGs go through torchvision's decoder, everything else through Pillow: torchvision's PNG decoder ends the process on
damaged pixel data, and Pillow costs a tenth more. Both routes keep these rules:

- The EXIF orientation is applied. Of an animation, the first frame is taken.
- 16-bit values keep their high byte: 0..65535 becomes 0..255. Floats are expected in [0, 1].
- Colour to grey is ITU-R 601 luma as Pillow computes it; grey to colour repeats the value.
- One or three channels: alpha is dropped, not blended. Two or four: alpha is 255 where the file has none.
- ``interpolate`` resizes with antialiasing, whatever the aspect. ``crop_or_pad`` keeps the scale: the centre is cut
  out, and a border repeats the edge. ``resize_crop`` keeps the aspect: it resizes until the result is
  ``crop_fraction`` of the tighter side, and cuts the centre out.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision.io  # noqa: F401  registers torch.ops.image
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.data.headers import array_layout, reason
from lightning_vision.data.jpeg import JpegInfo, jpeg_info
from lightning_vision.data.placement import CROPPED, SCALED, Resize
from lightning_vision.errors import DataError
from lightning_vision.types import Geometry

_UNCHANGED = 0
_ORIENTATION = 0x0112
# The operator itself: the Python function around it warns of its deprecation at every call since torchvision 0.29.
# Where it is gone, Pillow decodes.
_DECODE_JPEG: Any = getattr(torch.ops.image, "decode_jpeg", None)
ROUTE = "torchvision" if _DECODE_JPEG is not None else "pillow"


def decode_image(
    path: str | os.PathLike[str],
    geometry: Geometry,
    resize: Resize = SCALED,
    exact_decode: bool = True,
    out: Tensor | None = None,
) -> Tensor:
    """Decode an image file to the size and channels of ``geometry``; the rules are those of the module.

    Args:
        path: Image file: what Pillow reads, or ``.npy`` with ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``.
        geometry: Height, width and channels of the result.
        resize: How the size is reached.
        exact_decode: False lets the JPEG decoder halve images whose sides are at least twice the result's: about
            twice as fast, 44 dB from the exact pixels.
        out: uint8 ``(C, H, W)`` to write to; a new tensor if None.

    Returns:
        uint8 ``(C, H, W)``, contiguous unless ``out`` is not.

    Raises:
        DataError: Missing, empty, truncated or no image, with the path and the reason.
    """
    return decode_sized(path, geometry, resize, exact_decode, out)[0]


def decode_sized(
    path: str | os.PathLike[str],
    geometry: Geometry,
    resize: Resize = SCALED,
    exact_decode: bool = True,
    out: Tensor | None = None,
) -> tuple[Tensor, tuple[int, int]]:
    """Like ``decode_image``, with the height and width that the file itself has, after its EXIF orientation."""
    path = os.fspath(path)
    keep_alpha = geometry.num_channels in (2, 4)
    # A crop is scaled to at least this size.
    shrink = (geometry.height, geometry.width) if not exact_decode and resize.method != "crop_or_pad" else None
    try:
        pixels, orientation, (height, width) = _read(path, keep_alpha, shrink)
    except DataError:
        raise
    except Exception as error:  # decoders raise nearly every type on broken files
        raise DataError(f"{path}: {_why(path, error)}") from error
    turned = orientation >= 5
    wanted = (geometry.height, geometry.width)
    file = (width, height) if turned else (height, width)
    scaled = resize.scaled(file, wanted)
    # Turned after resizing: fewer pixels, and the resize stays on the layout that it is fast on.
    small = orient(_resize(pixels, scaled[::-1] if turned else scaled, resize.filter).numpy(), orientation)
    if scaled != wanted:
        small = crop_or_pad(small, wanted, resize)
    if out is None:
        out = torch.empty((geometry.num_channels, *wanted), dtype=torch.uint8)
    _fill_channels(small, out.numpy())
    return out, file


def orient(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Apply an EXIF orientation (1 to 8) to the last two axes, height and width; returns a view."""
    if orientation >= 5:
        pixels = pixels.swapaxes(-1, -2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[..., ::-1, :]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[..., :, ::-1]
    return pixels


def crop_or_pad(
    pixels: npt.NDArray[np.uint8], size: tuple[int, int], resize: Resize = CROPPED, fill: int | None = None
) -> npt.NDArray[np.uint8]:
    """Cut the centre of ``(..., H, W)`` out, or add a border: of ``fill``, or repeating the edge if None."""
    rows, cols = (_places(resize, have, want) for have, want in zip(pixels.shape[-2:], size, strict=True))
    height, width = pixels.shape[-2:]
    result = pixels[..., rows.clip(0, height - 1), :][..., cols.clip(0, width - 1)]
    if fill is not None:
        result[..., (rows < 0) | (rows >= height), :] = fill
        result[..., (cols < 0) | (cols >= width)] = fill
    return result


def _places(resize: Resize, have: int, want: int) -> npt.NDArray[np.int64]:
    offset = resize.offset(have, want)
    return np.arange(offset, offset + want)


def _read(path: str, keep_alpha: bool, shrink: tuple[int, int] | None) -> tuple[Tensor, int, tuple[int, int]]:
    """Return pixels ``(C, H, W)``, the orientation still to be applied, and the stored height and width."""
    if path.lower().endswith(".npy"):
        pixels = _read_array(path)
        return pixels, 1, (pixels.shape[1], pixels.shape[2])
    data = np.fromfile(path, np.uint8)
    if not data.size:
        raise DataError(f"{path}: the file is empty")
    info = jpeg_info(data.data)
    draft = _draft_size(info, shrink)
    fast = _DECODE_JPEG is not None and draft is None
    if fast and info is not None and info.orientation is not None and info.components in (1, 3):
        try:
            return _DECODE_JPEG(torch.from_numpy(data), _UNCHANGED, False), info.orientation, (info.height, info.width)
        except RuntimeError:
            # Pillow reads a few variants that this decoder does not, or raises the error that is shown.
            return _read_pillow(path, data, keep_alpha, None, info)
    return _read_pillow(path, data, keep_alpha, draft, info)


def _draft_size(info: JpegInfo | None, shrink: tuple[int, int] | None) -> tuple[int, int] | None:
    if info is None or shrink is None or info.orientation is None:
        return None
    height, width = shrink if info.orientation < 5 else shrink[::-1]
    return (width, height) if info.height >= 2 * height and info.width >= 2 * width else None


def _read_pillow(
    path: str, data: npt.NDArray[np.uint8], keep_alpha: bool, draft: tuple[int, int] | None, info: JpegInfo | None
) -> tuple[Tensor, int, tuple[int, int]]:
    with Image.open(io.BytesIO(data.data)) as image:
        if draft is not None:
            image.draft(None, draft)
        orientation = _orientation(image)
        array = _eight_bit(image, path, keep_alpha)
    # A draft is smaller than the file.
    size = (info.height, info.width) if draft is not None and info is not None else (array.shape[0], array.shape[1])
    if array.ndim == 2:
        array = array[..., None]
    return torch.from_numpy(array).permute(2, 0, 1), orientation, size


def _orientation(image: Image.Image) -> int:
    # Pillow turns TIFFs while it loads them. Of a PNG, only a chunk before the pixels counts, as in its header.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _eight_bit(image: Image.Image, path: str, keep_alpha: bool) -> npt.NDArray[np.uint8]:
    """Bring any mode of Pillow to uint8 ``(H, W)`` or ``(H, W, C)``."""
    image.load()
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _scaled(np.array(image), path)
    alpha = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if mode == "1":
        image = image.convert("L")
    elif mode in ("La", "RGBa"):
        image = image.convert("LA" if mode == "La" else "RGBA")
    elif mode == "P" and alpha:
        image = image.convert("RGBA")  # to RGB at once, Pillow warns
    if image.mode in ("L", "LA"):
        wanted = "LA" if alpha and keep_alpha else "L"
    else:
        wanted = "RGBA" if alpha and keep_alpha else "RGB"
    return np.array(image if image.mode == wanted else image.convert(wanted))


def _scaled(array: npt.NDArray[Any], path: str) -> npt.NDArray[np.uint8]:
    """Scale numbers to 0..255 by the range of their type, never by their own range."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if not array.size:
        raise DataError(f"{path}: an array of shape {array.shape} is no image")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise DataError(
                f"{path}: floats from {low} to {high}", expected="pixels in [0, 1], or 8- or 16-bit integers"
            )
        return np.rint(array * 255).astype(np.uint8)
    if array.dtype.kind not in "ui" or low < 0 or high > 65535:
        raise DataError(f"{path}: {array.dtype} values from {low} to {high}", expected="8- or 16-bit integers")
    if array.dtype.itemsize == 1:
        return array.astype(np.uint8)
    return (array >> 8).astype(np.uint8)


def _read_array(path: str) -> Tensor:
    array = np.load(path, allow_pickle=False)
    layout = array_layout(array.shape)
    if layout is None:
        raise DataError(
            f"{path}: an array of shape {array.shape} is no image", expected="(H, W), (H, W, C) or (C, H, W)"
        )
    height, width, channels, channels_first = layout
    pixels = _scaled(array, path)
    pixels = np.moveaxis(pixels, 0, -1) if channels_first else pixels.reshape(height, width, channels)
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def _resize(pixels: Tensor, size: tuple[int, int], resize_filter: str) -> Tensor:
    if tuple(pixels.shape[1:]) == size:
        return pixels
    return F.interpolate(pixels[None], size, mode=resize_filter, antialias=True)[0]


def _fill_channels(pixels: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8]) -> None:
    """Write ``(C, H, W)`` to ``out``, whose channels decide what becomes of colour and alpha.

    By numpy: torch's copy would start a team of threads in every decode thread.
    """
    have, want = len(pixels), len(out)
    colour = pixels[: 3 if have >= 3 else 1]
    colours = 3 if want >= 3 else 1
    if colours < len(colour):
        np.copyto(out[0], _luma(colour))
    else:
        np.copyto(out[:colours], colour)  # grey is broadcast
    if want in (2, 4):
        out[-1] = pixels[-1] if have in (2, 4) else 255


def _luma(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    red, green, blue = rgb.astype(np.uint32)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


def _why(path: str, error: Exception) -> str:
    known = (
        FileNotFoundError,
        IsADirectoryError,
        PermissionError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    )
    if isinstance(error, known):
        return reason(path, error)
    return f"cannot be decoded ({type(error).__name__}: {error})"
