"""An image file becomes uint8 pixels of one shape.

JPEGs go through torchvision's decoder, everything else through Pillow: torchvision's PNG decoder ends the process on
damaged pixel data, and Pillow costs a tenth more. Both routes keep these rules:

- The EXIF orientation is applied. Of an animation, the first frame is taken.
- 16-bit values keep their high byte: 0..65535 becomes 0..255. Floats are expected in [0, 1].
- Colour to grey is ITU-R 601 luma as Pillow computes it; grey to colour repeats the value.
- One or three channels: alpha is dropped, not blended. Two or four: alpha is 255 where the file has none.
- ``interpolate`` resizes with antialiasing, whatever the aspect. ``crop_or_pad`` keeps the scale: the centre is cut
  out, and a border repeats the edge. ``resize_crop`` keeps the aspect: it resizes until the result is
  ``crop_fraction`` of the tighter side, and cuts the centre out. ``resize_pad`` keeps the aspect and the whole image:
  it resizes until the tighter side fits, and adds a border that repeats the edge.
- What is cut off or damaged is an error, wherever the decoders notice it or leave the grey of missing data.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision.io  # noqa: F401  registers torch.ops.image
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.data.headers import open_array, read_header
from lightning_vision.data.imagefile import (
    check_pixels,
    load_whole,
    open_image,
    orientation_to_apply,
    read_bytes,
    reason,
)
from lightning_vision.data.jpeg import JpegInfo, has_end, jpeg_info, without_end
from lightning_vision.data.placement import CROPPED, SCALED, Resize, Size
from lightning_vision.errors import DataError
from lightning_vision.types import Geometry

_UNCHANGED = 0
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
        path: JPEG, PNG, WebP, TIFF, BMP, GIF, PNM, AVIF, JPEG 2000, TGA or ICO, whatever its name, or ``.npy`` with
            ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``.
        geometry: Height, width and channels of the result.
        resize: How the size is reached.
        exact_decode: False lets the JPEG decoder halve images whose sides are at least twice what they are scaled to:
            about twice as fast, 44 dB from the exact pixels.
        out: uint8 ``(C, H, W)`` to write to; a new tensor if None.

    Returns:
        uint8 ``(C, H, W)``, contiguous unless ``out`` is not.

    Raises:
        DataError: Missing, empty, truncated, too large or no image, with the path and the reason.
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
    wanted = (geometry.height, geometry.width)
    scale = None if exact_decode else lambda size: resize.scaled(size, wanted)
    try:
        pixels, orientation, (height, width) = _read(path, keep_alpha, scale)
    except DataError:
        raise
    except Exception as error:  # decoders raise nearly every type on broken files
        raise DataError(f"{path}: {reason(path, error)}") from error
    turned = orientation >= 5
    file = (width, height) if turned else (height, width)
    scaled = resize.scaled(file, wanted)
    # Turned after resizing: fewer pixels, and the resize stays on the layout that it is fast on.
    resized = resize_pixels(pixels[None], scaled[::-1] if turned else scaled, resize.filter)[0]
    small = orient(resized.numpy(), orientation)
    if scaled != wanted:
        small = crop_or_pad(small, wanted, resize)
    if out is None:
        out = torch.empty((geometry.num_channels, *wanted), dtype=torch.uint8)
    _fill_channels(small, out.numpy())
    return out, file


def decode_whole(path: str | os.PathLike[str], num_channels: int) -> Tensor:
    """Decode an image at the size of its own file: uint8 ``(C, H, W)``, the channels of a pixel side by side.

    Raises:
        DataError: As ``decode_image`` does.
    """
    header = read_header(path)
    out = torch.empty((header.height, header.width, num_channels), dtype=torch.uint8).permute(2, 0, 1)
    return decode_image(path, Geometry(header.height, header.width, num_channels), CROPPED, out=out)


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


def _read(path: str, keep_alpha: bool, scale: Callable[[Size], Size] | None) -> tuple[Tensor, int, Size]:
    """Return pixels ``(C, H, W)``, the orientation still to be applied, and the stored height and width.

    Args:
        path: The file.
        keep_alpha: Keep the alpha channel, if there is one.
        scale: To which size the file will be scaled, both as they are looked at; the pixels may be fewer than the
            file has, but not than these. None = all pixels.
    """
    if path.lower().endswith(".npy"):
        pixels = _read_array(path)
        return pixels, 1, (pixels.shape[1], pixels.shape[2])
    data = read_bytes(path)
    info = jpeg_info(data.data)
    if info is None:
        return _read_pillow(path, data, keep_alpha, None)
    check_pixels(path, info.height, info.width)
    draft = _draft_size(info, scale)
    pixels, orientation = _read_jpeg(path, data, info, keep_alpha, draft)
    # Missing data are zeros, which is this grey; CMYK shows another one.
    if info.components == 4 or set(pixels[:, -1, -1].tolist()) == {128}:
        _refuse_if_cut(path, data, info)
    return pixels, orientation, (info.height, info.width)


def _read_jpeg(
    path: str, data: npt.NDArray[np.uint8], info: JpegInfo, keep_alpha: bool, draft: tuple[int, int] | None
) -> tuple[Tensor, int]:
    if _DECODE_JPEG is not None and draft is None and info.orientation is not None and info.components in (1, 3):
        # Pillow reads a few variants that this decoder does not, or raises the error that is shown.
        with contextlib.suppress(RuntimeError):
            return _DECODE_JPEG(torch.from_numpy(data), _UNCHANGED, False), info.orientation
    pixels, orientation, _ = _read_pillow(path, data, keep_alpha, draft)
    # Pillow is content if zero bytes, such as a copy that did not finish leaves, happen to be codes.
    if not has_end(data, info):
        raise DataError(f"{path}: cut off: the end of the image is missing")
    return pixels, orientation


def _draft_size(info: JpegInfo, scale: Callable[[Size], Size] | None) -> tuple[int, int] | None:
    """Width and height that suffice for the decoder, or None if it does not get cheaper."""
    if scale is None or info.orientation is None:
        return None
    if info.orientation < 5:
        height, width = scale((info.height, info.width))
    else:
        width, height = scale((info.width, info.height))
    return (width, height) if info.height >= 2 * height and info.width >= 2 * width else None


def _refuse_if_cut(path: str, data: npt.NDArray[np.uint8], info: JpegInfo) -> None:
    content = without_end(data, info)
    if content is not None:
        try:
            with open_image(np.frombuffer(content, np.uint8)) as image:
                image.load()
        except OSError as error:
            raise DataError(f"{path}: cut off: the last part of the image is missing") from error


def _read_pillow(
    path: str, data: npt.NDArray[np.uint8], keep_alpha: bool, draft: tuple[int, int] | None
) -> tuple[Tensor, int, Size]:
    with open_image(data) as image:
        if draft is not None:
            image.draft(None, draft)
        orientation = orientation_to_apply(image)
        load_whole(image, path, data)
        array = _eight_bit(image, path, keep_alpha)
    if array.ndim == 2:
        array = array[..., None]
    return torch.from_numpy(array).permute(2, 0, 1), orientation, (array.shape[0], array.shape[1])


def _eight_bit(image: Image.Image, path: str, keep_alpha: bool) -> npt.NDArray[np.uint8]:
    """Bring any mode of Pillow, loaded, to uint8 ``(H, W)`` or ``(H, W, C)``."""
    mode = image.mode
    if mode == "I" and image.format == "TIFF":
        raise DataError(
            f"{path}: 32-bit integers, whose range is not known", expected="8 or 16 bits, or floats in [0, 1]"
        )
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
    array, (height, width, channels, channels_first) = open_array(path)
    if array.dtype.kind in "ui" and array.dtype.itemsize > 2:
        # 8-bit values are as likely as 16-bit ones: either guess would turn images black or white.
        raise DataError(
            f"{path}: pixels of type {array.dtype}, whose range is not known",
            expected="uint8, uint16, bool, or floats in [0, 1]",
        )
    pixels = _scaled(array, path)
    pixels = np.moveaxis(pixels, 0, -1) if channels_first else pixels.reshape(height, width, channels)
    return torch.from_numpy(np.array(pixels, order="C")).permute(2, 0, 1)


def resize_pixels(pixels: Tensor, size: tuple[int, int], resize_filter: str) -> Tensor:
    """Scale uint8 ``(B, C, H, W)`` to a height and width, without aliasing."""
    if tuple(pixels.shape[2:]) == size:
        return pixels
    return F.interpolate(pixels, size, mode=resize_filter, antialias=True)


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
