"""A mask file's pixels become class ids: the one way for training, for ``check`` and for what is known before both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_vision.data.mask_colors import hex_color, positions
from lightning_vision.data.mask_files import MaskFile, read_mask_file
from lightning_vision.errors import DataError, listed
from lightning_vision.types import TargetSpec

# From this grey value on, a pixel is foreground where masks are cut in two.
THRESHOLD = 128
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")


@dataclass(frozen=True)
class Foreign:
    """Pixels of a mask that are neither a class nor ignored.

    Args:
        values: Their distinct values, ascending; colours as ``0xrrggbb``.
        pixels: How many there are.
    """

    values: list[int]
    pixels: int


class MaskClasses:
    """Reads mask files as class ids.

    Args:
        target: Classes, ignored value, and what the pixels mean.
    """

    def __init__(self, target: TargetSpec) -> None:
        self.target = target

    def read(self, path: str) -> tuple[npt.NDArray[np.uint8], int]:
        """Return class ids and ``ignore_index``, uint8 ``(H, W)``, and the EXIF orientation that is to be applied.

        Raises:
            DataError: Unreadable, or a pixel is no class; with the path, the values and the number of pixels.
        """
        ids, foreign, orientation = self.look(path)
        if foreign is not None:
            raise self.error(path, foreign, ids.size)
        return ids, orientation

    def look(self, path: str) -> tuple[npt.NDArray[np.uint8], Foreign | None, int]:
        """Return class ids, what is no class, and the orientation; foreign pixels have the id 255.

        Raises:
            DataError: Unreadable, or a palette without the colour of a pixel; with the path.
        """
        by_color = self.target.mask_values == "color"
        mask = read_mask_file(path, by_color)
        return *(self._of_colors(mask, path) if by_color else self._of_values(mask)), mask.orientation

    def error(self, path: str, foreign: Foreign, pixels: int) -> DataError:
        """The error for a mask of so many pixels with some that are no class."""
        target = self.target
        ignored = "" if target.ignore_index is None else f", and {target.ignore_index} (ignored)"
        if target.mask_values == "color":
            colors = [hex_color(value) for value in foreign.values]
            known = listed(map(hex_color, target.palette or ()), 12)
            return DataError(
                f"{path}: the colour {colors[0]} is no class",
                given=f"{listed(colors, 8)} in {foreign.pixels} of {pixels} pixels",
                expected=f"a colour of the training masks, or of data.colors: {known}",
                override=["preprocessing.unseen_color=ignore  (its pixels do not count)", *jpeg_advice(path)],
            )
        known = "0 and 255" if target.mask_values == "binary" else f"0 to {target.num_classes - 1}"
        single = target.ignore_index is None and len(foreign.values) == 1
        return DataError(
            f"{path}: the mask value {foreign.values[0]} is no class",
            given=f"values {listed(foreign.values, 8)} in {foreign.pixels} of {pixels} pixels",
            expected=known + ignored,
            override=[*([f"data.ignore_index={foreign.values[0]}"] if single else []), *jpeg_advice(path)],
        )

    def _of_colors(self, mask: MaskFile, path: str) -> tuple[npt.NDArray[np.uint8], Foreign | None]:
        target, values = self.target, mask.values
        table = positions(target.palette or ())
        # A palette has few colours: its indices are looked up, in place of the colours of all pixels.
        colors = mask.colors(path) if values.dtype == np.uint8 else None
        position = table.take(values) if colors is None else table[colors].take(values)
        ids = (position - np.uint16(1)).astype(np.uint8)  # what has no position becomes 255
        if position.min(initial=1):
            return ids, None
        unknown = position == 0
        if target.ignore_unseen and target.ignore_index is not None:
            ids[unknown] = target.ignore_index
            return ids, None
        foreign = values[unknown] if colors is None else colors[values[unknown]]
        return ids, Foreign(np.unique(foreign).tolist(), int(unknown.sum()))

    def _of_values(self, mask: MaskFile) -> tuple[npt.NDArray[np.uint8], Foreign | None]:
        target, values = self.target, mask.values
        assert values.dtype == np.uint8
        if target.mask_values == "index" and values.max(initial=0) < target.num_classes:
            return values.view(np.uint8), None
        id_of = np.full(256, -1, np.int64)
        if target.mask_values == "index":
            id_of[: target.num_classes] = np.arange(min(target.num_classes, 256))
        elif target.mask_values == "threshold":
            id_of[:THRESHOLD], id_of[THRESHOLD:] = 0, 1
        else:
            id_of[[0, 255]] = 0, 1
        if mask.one_bit and target.mask_values != "index":
            id_of[1] = 1
        if target.ignore_index is not None and 0 <= target.ignore_index <= 255:
            id_of[target.ignore_index] = target.ignore_index
        ids = id_of.astype(np.uint8).take(values)
        if (id_of >= 0).all():
            return ids, None
        counts = np.bincount(values.ravel(), minlength=256)
        wrong = np.flatnonzero((counts > 0) & (id_of < 0))
        return ids, Foreign(wrong.tolist(), int(counts[wrong].sum())) if len(wrong) else None


def jpeg_advice(path: str) -> list[str]:
    """What to do about a mask that is a JPEG."""
    return ["masks saved as PNG: JPEG changes their values"] if path.lower().endswith(_JPEG) else []
