"""What the pixel values of mask files mean: found by looking at the files, not by guessing from one of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from lightning_vision.data.headers import reason
from lightning_vision.data.index import PackedStrings
from lightning_vision.data.threads import available_cores
from lightning_vision.errors import ConfigError, DataError, listed
from lightning_vision.types import TargetSpec

BINARY_NAMES = ("background", "foreground")
Palette = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class MaskFile:
    """Raw values of a mask file.

    Args:
        values: uint8 ``(H, W)``, as stored: a palette's indices, grey values, 0 and 1 of one-bit files.
        palette: The colours of the indices, or None.
        one_bit: The file has one bit a pixel.
    """

    values: npt.NDArray[np.uint8]
    palette: Palette | None = None
    one_bit: bool = False


def read_mask_file(path: str) -> MaskFile:
    """Read the raw values of a mask file; nothing is scaled, and no palette is applied.

    Raises:
        DataError: Not readable, coloured, or values above 255; with the path.
    """
    try:
        if path.lower().endswith(".npy"):
            return MaskFile(_integers(np.load(path, allow_pickle=False), path))
        # Not by name: Pillow maps a named TIFF without compression, and garbles it if its orientation swaps the sides.
        with open(path, "rb") as file, Image.open(file) as image:
            image.load()
            return _pillow_mask(image, path)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly every type on broken files
        raise DataError(f"{path}: {reason(path, error)}") from error


def _pillow_mask(image: Image.Image, path: str) -> MaskFile:
    if image.mode == "P":
        flat = image.getpalette("RGB") or []
        palette = tuple((flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3))
        return MaskFile(np.asarray(image), palette)
    if image.mode == "1":
        return MaskFile(np.asarray(image).astype(np.uint8), one_bit=True)
    array = np.asarray(image)
    if image.mode in ("LA", "La"):
        array = array[..., 0]
    elif array.ndim == 3:
        colours = array[..., :3]
        if not (np.array_equal(colours[..., 0], colours[..., 1]) and np.array_equal(colours[..., 0], colours[..., 2])):
            raise DataError(
                f"{path}: the mask is {image.mode}, and its colours are not grey",
                expected="one value a pixel: a palette PNG (mode P) or grey values that are class ids",
            )
        array = colours[..., 0]
    return MaskFile(_unscaled(_integers(array, path), path))


def _unscaled(values: npt.NDArray[np.uint8], path: str) -> npt.NDArray[np.uint8]:
    """Undo Pillow's scaling of 2- and 4-bit grey PNGs to 0..255: the stored numbers are the class ids."""
    if not path.lower().endswith(".png"):
        return values
    with open(path, "rb") as file:
        head = file.read(26)
    depth, colour_type = (head[24], head[25]) if len(head) == 26 else (8, 0)
    return values // {2: 85, 4: 17}[depth] if colour_type == 0 and depth in (2, 4) else values


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


@dataclass
class MaskScan:
    """What a scan of mask files found.

    Args:
        rows: int64 ``(n,)``: the scanned rows of the index.
        present: bool ``(n, 256)``: which values each file has.
        counts: int64 ``(groups, 256)``: pixels of each value, per group (split).
        size: int32 ``(n, 2)``: height and width of each mask, 0 if it could not be read.
        errors: Position in ``rows`` and reason of files that could not be read.
        palette: The first palette found.
        one_bit: Every readable file has one bit a pixel.
    """

    rows: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.int64]
    size: npt.NDArray[np.int32]
    errors: list[tuple[int, str]] = field(default_factory=list)
    palette: Palette | None = None
    one_bit: bool = False

    @property
    def values(self) -> list[int]:
        """All values that occur, ascending."""
        return [int(v) for v in np.flatnonzero(self.present.any(axis=0))]

    def first_with(self, value: int) -> int:
        """Row of the index whose mask is the first with this value."""
        return int(self.rows[int(np.argmax(self.present[:, value]))])


def scan_masks(
    masks: PackedStrings, rows: npt.NDArray[np.int64], group: npt.NDArray[np.uint8] | None = None
) -> MaskScan:
    """Read the masks of ``rows`` with all cores and note which values occur where.

    Args:
        masks: Path of every mask.
        rows: Rows to read.
        group: uint8 ``(N,)``, 0 to 2 per row of the index: pixels are counted apart for each.
    """
    scan = MaskScan(
        rows=rows,
        present=np.zeros((len(rows), 256), np.bool_),
        counts=np.zeros((3, 256), np.int64),
        size=np.zeros((len(rows), 2), np.int32),
    )

    def read(position: int) -> tuple[npt.NDArray[np.int64], tuple[int, ...], Palette | None, bool] | str:
        try:
            mask = read_mask_file(masks[int(rows[position])])
        except DataError as error:
            return str(error)
        return np.bincount(mask.values.ravel(), minlength=256), mask.values.shape, mask.palette, mask.one_bit

    one_bit = []
    with ThreadPoolExecutor(available_cores()) as pool:
        for position, found in enumerate(pool.map(read, range(len(rows)))):
            if isinstance(found, str):
                scan.errors.append((position, found))
                continue
            counts, shape, palette, bit = found
            scan.present[position] = counts > 0
            scan.counts[0 if group is None else group[rows[position]]] += counts
            scan.size[position] = shape
            scan.palette = scan.palette or palette
            one_bit.append(bit)
    scan.one_bit = bool(one_bit) and all(one_bit)
    return scan


def mask_target(
    scan: MaskScan,
    masks: PackedStrings,
    class_names: tuple[str, ...] | None,
    num_classes: int | None,
    ignore_index: int | None,
    mask_values: Literal["auto", "index", "binary"],
) -> TargetSpec:
    """Decide what the values mean.

    ``auto`` takes files that hold only 0 and 255 as ``binary``, unless 255 is ignored or they have a palette; all
    else is ``index``: the value is the class id. A last class name whose id is ``ignore_index`` is dropped; an ignored
    value among the others keeps its id and is never counted.

    Raises:
        ConfigError: ``num_classes`` contradicts ``class_names`` or ``binary``.
        DataError: A value is no class and not ignored, or there is only one class.
    """
    values = [v for v in scan.values if v != ignore_index]
    grey_pair = set(values) <= {0, 255} and 255 in values and scan.palette is None
    kind: Literal["index", "binary"] = "binary" if mask_values == "binary" or (
        mask_values == "auto" and grey_pair
    ) else "index"  # fmt: skip
    names = class_names
    if names is not None and kind == "index" and ignore_index == len(names) - 1:
        names = names[:-1]
    if kind == "binary":
        names = _binary_names(values, scan, masks, names, num_classes)
    elif names is None:
        names = _index_names(values, num_classes, scan, masks)
    if num_classes is not None and num_classes != len(names):
        raise ConfigError(
            "data.num_classes contradicts the class names",
            given=f"num_classes={num_classes}, and {len(names)} class names"
            + (f" without the ignored {ignore_index}" if ignore_index is not None else ""),
            override=[f"data.num_classes={len(names)}", "data.class_names=null"],
        )
    if kind == "index":
        _check_range(values, len(names), scan, masks, class_names, num_classes, ignore_index)
    if len(names) < 2:
        raise DataError(
            "the masks have one class only, so there is nothing to tell apart",
            given=f"mask values {listed(scan.values)}"
            + (f", ignore_index={ignore_index}" if ignore_index is not None else ""),
            expected="at least two classes",
        )
    palette = scan.palette[: len(names)] if scan.palette and len(scan.palette) >= len(names) else None
    return TargetSpec("mask", names, ignore_index, kind, palette)


def _binary_names(
    values: Sequence[int],
    scan: MaskScan,
    masks: PackedStrings,
    names: tuple[str, ...] | None,
    num_classes: int | None,
) -> tuple[str, ...]:
    # One-bit files hold 0 and 1 by themselves, whatever Pillow shows.
    other = [v for v in values if v not in ((0, 1, 255) if scan.one_bit else (0, 255))]
    if other:
        raise DataError(
            f"{masks[scan.first_with(other[0])]}: the value {other[0]} in a binary mask",
            given="data.mask_values=binary",
            expected="0 and 255",
            override=["data.mask_values=index", f"data.ignore_index={other[0]}"],
        )
    count = len(names) if names is not None else num_classes
    if count not in (None, 2):
        raise ConfigError(
            f"the masks hold only 0 and 255, which is two classes, but {count} are configured",
            given=f"data.class_names has {count} names" if names is not None else f"data.num_classes={count}",
            expected="2",
            override=["data.mask_values=index data.ignore_index=255", "data.num_classes=2"],
        )
    return names or BINARY_NAMES


def _index_names(
    values: Sequence[int], num_classes: int | None, scan: MaskScan, masks: PackedStrings
) -> tuple[str, ...]:
    if num_classes is not None:
        return tuple(str(i) for i in range(num_classes))
    count = max(values, default=0) + 1
    if count == 256:
        raise DataError(
            f"{masks[scan.first_with(255)]}: the mask value 255, which usually means pixels that do not count",
            given=f"mask values {listed(values, 12)}",
            expected="class ids from 0, or 0 and 255 alone",
            override=["data.ignore_index=255", "data.mask_values=binary", *_jpeg_advice(masks, scan, 255)],
        )
    if count > 32 and len(values) * 8 <= count:
        raise DataError(
            f"the mask values look like grey levels, not class ids: {len(values)} values, the largest is {values[-1]}",
            given=f"mask values {listed(values, 12)}",
            expected="class ids from 0",
            override=[f"data.num_classes={count}", *_jpeg_advice(masks, scan, values[-1])],
        )
    return BINARY_NAMES if scan.one_bit and count == 2 else tuple(str(i) for i in range(count))


def _check_range(
    values: Sequence[int],
    count: int,
    scan: MaskScan,
    masks: PackedStrings,
    class_names: tuple[str, ...] | None,
    num_classes: int | None,
    ignore_index: int | None,
) -> None:
    beyond = [v for v in values if v >= count]
    if not beyond:
        return
    value = beyond[-1]
    # A value that is ignored already would be missed.
    overrides = [f"data.ignore_index={value}"] if len(beyond) == 1 and ignore_index is None else []
    if class_names is None:
        overrides.append(f"data.num_classes={value + 1}")
    raise DataError(
        f"{masks[scan.first_with(value)]}: the mask value {value} is no class",
        given=("" if num_classes is None else f"data.num_classes={num_classes}, and ")
        + f"mask values {listed(values, 12)}; beyond the classes: {listed(beyond, 5)}",
        expected=f"0 to {count - 1} ({count} classes)" + (f": {listed(class_names, 12)}" if class_names else ""),
        override=overrides + _jpeg_advice(masks, scan, value),
    )


def _jpeg_advice(masks: PackedStrings, scan: MaskScan, value: int) -> list[str]:
    jpeg = masks[scan.first_with(value)].lower().endswith((".jpg", ".jpeg"))
    return ["masks saved as PNG: JPEG changes their values"] if jpeg else []
