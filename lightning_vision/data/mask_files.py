"""The pixels of a mask file as they are stored: values that may be class ids, or colours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from lightning_vision.data.imagefile import (
    check_pixels,
    load_array,
    load_whole,
    open_image,
    orientation_to_apply,
    read_bytes,
    reason,
)
from lightning_vision.data.mask_colors import GREYS, Packed, pack
from lightning_vision.errors import DataError
from lightning_vision.overrides import override
from lightning_vision.types import Palette


@dataclass(frozen=True)
class MaskFile:
    """Raw pixels of a mask file, before its EXIF orientation.

    Args:
        values: uint8 ``(H, W)``, as stored: a palette's indices, grey values, 0 and 1 of one-bit files. Or uint32
            ``(H, W)``: colours as ``0xrrggbb``.
        palette: The colours of the indices, or None.
        one_bit: The file has one bit a pixel.
        orientation: EXIF orientation, 1 to 8, that is still to be applied.
    """

    values: npt.NDArray[np.uint8] | npt.NDArray[np.uint32]
    palette: Palette | None = None
    one_bit: bool = False
    orientation: int = 1

    def colors(self, path: str) -> Packed:
        """Return the colour of each uint8 value, uint32 ``(256,)``; grey unless there is a palette.

        Args:
            path: Of the file, for the error.

        Raises:
            DataError: A pixel has an index that the palette has no colour for.
        """
        if self.palette is None:
            return GREYS[[0, *[255] * 255]] if self.one_bit else GREYS
        largest, count = int(self.values.max(initial=0)), len(self.palette)
        if largest >= count:
            raise DataError(
                f"{path}: the palette has no colour for the index {largest}",
                given=f"{count} colours, and the colours are the classes",
                expected=f"indices from 0 to {count - 1}, or a palette with more colours",
                override=[
                    "preprocessing.infer_image_num_classes=false  (the index of a pixel is its class)",
                    "data.mask_values=index  (the same, beside a checkpoint)",
                ],
            )
        table = np.zeros(256, np.uint32)
        table[:count] = pack(np.array(self.palette, np.uint8))
        return table


def read_mask_file(path: str, colors: bool = False) -> MaskFile:
    """Read the pixels of a mask file; nothing is scaled, no palette is applied, alpha is left out.

    Args:
        path: All that Pillow opens, and ``.npy``.
        colors: Its colours count: files of three or four channels are read as colours, in place of being refused.

    Raises:
        DataError: Not readable, coloured, or values above 255; with the path.
    """
    try:
        if path.lower().endswith(".npy"):
            return _array_mask(load_array(path), path, colors)
        data = read_bytes(path)
        with open_image(data) as image:
            orientation = orientation_to_apply(image)
            load_whole(image, path, data)
            return replace(_pillow_mask(image, path, data, colors), orientation=orientation)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly every type on broken files
        raise DataError(f"{path}: {reason(path, error)}") from error


def _pillow_mask(image: Image.Image, path: str, data: npt.NDArray[np.uint8], colors: bool) -> MaskFile:
    mode = image.mode
    if mode in ("P", "PA"):
        flat = image.getpalette("RGB") or []
        palette = tuple((flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3))
        indices = np.asarray(image)
        return MaskFile(indices if mode == "P" else indices[..., 0], palette)
    if mode == "1":
        return MaskFile(np.asarray(image).astype(np.uint8), one_bit=True)
    if mode in ("LA", "La"):
        return MaskFile(np.asarray(image)[..., 0])
    array = np.asarray(image)
    if array.ndim == 3:
        array = np.asarray(image if mode in ("RGB", "RGBA", "RGBX") else image.convert("RGB"))
        return _color_mask(array[..., :3], path, mode, colors)
    values = _integers(array, path)
    return MaskFile(_unscaled(values, data) if image.format == "PNG" and not colors else values)


def _array_mask(mapped: npt.NDArray[np.generic], path: str, colors: bool) -> MaskFile:
    if mapped.ndim >= 2:
        check_pixels(path, *sorted(mapped.shape)[-2:])
    array = np.array(mapped)  # the file may go while its pixels are in use
    if array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8:
        return _color_mask(array[..., :3].astype(np.uint8, copy=False), path, "an array of colours", colors)
    return MaskFile(_integers(array, path))


def _color_mask(rgb: npt.NDArray[np.uint8], path: str, mode: str, colors: bool) -> MaskFile:
    if colors:
        return MaskFile(pack(rgb))
    if not (np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2])):
        raise DataError(
            f"{path}: the mask is {mode}, and its colours are not grey",
            expected="one value a pixel: a palette PNG (mode P) or grey values that are class ids",
            override=[
                "preprocessing.infer_image_num_classes=true  (every colour is a class)",
                f"{override('data.colors', ['#000000', '#ff0000'])}  (of each class; also beside a checkpoint)",
            ],
        )
    return MaskFile(rgb[..., 0])


def _unscaled(values: npt.NDArray[np.uint8], data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Undo Pillow's scaling of 2- and 4-bit grey PNGs to 0..255: the stored numbers are the class ids."""
    depth, color_type = data[24:26].tolist()
    return values // {2: 85, 4: 17}[depth] if color_type == 0 and depth in (2, 4) else values


def _integers(array: npt.NDArray[np.generic], path: str) -> npt.NDArray[np.uint8]:
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2:
        raise DataError(f"{path}: an array of shape {array.shape} is no mask", expected="(H, W)")
    if array.dtype == np.uint8:
        return array.view(np.uint8)
    numbers = np.asarray(array)
    if numbers.dtype.kind not in "buif" or (
        numbers.dtype.kind == "f" and not np.array_equal(numbers, np.rint(numbers))
    ):
        raise DataError(
            f"{path}: mask values of type {array.dtype} are no class ids", expected="integers from 0 to 255"
        )
    low, high = int(numbers.min(initial=0)), int(numbers.max(initial=0))
    if low < 0 or high > 255:
        raise DataError(f"{path}: mask value {low if low < 0 else high} cannot be a class id", expected="0 to 255")
    return numbers.astype(np.uint8)
