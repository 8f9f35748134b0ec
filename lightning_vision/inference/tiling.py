"""Images larger than those of the training: windows that overlap, predicted one by one and blended row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_vision.data.placement import Size

# Windows (B, C, h, w) uint8 to their probabilities (K, h, w), window by window.
Predict = Callable[[Tensor], Iterable[Tensor]]


@dataclass(frozen=True)
class Tiling:
    """Where the windows of an image lie.

    Args:
        tile: Height and width of a window, in pixels of the image's file.
        overlap: Share of a window that it has in common with its neighbour, in [0, 1).
    """

    tile: Size
    overlap: float

    def fits(self, size: Size) -> bool:
        """Whether an image of this height and width lies within one window."""
        return size[0] <= self.tile[0] and size[1] <= self.tile[1]

    def is_larger(self, size: Size) -> bool:
        """Whether an image of this height and width takes several windows."""
        return not self.fits(size)

    def corners(self, size: Size) -> list[Size]:
        """Top and left of every window of an image of this height and width, row by row."""
        tops, lefts = (_starts(*sides, self.overlap) for sides in zip(size, self.tile, strict=True))
        return [(top, left) for top in tops for left in lefts]


def _starts(size: int, tile: int, overlap: float) -> list[int]:
    """Where windows begin along a side; the last one is shifted inwards, to end where the side does."""
    step = max(1, round(tile * (1 - overlap)))
    last = max(0, size - tile)
    return [*range(0, last, step), last]


def hann(length: int) -> Tensor:
    """The weight of each pixel along a window's side, float32 ``(length,)``, from near 0 at its ends to 1.

    A Hann window, sampled at the pixels' centres: greater than 0 everywhere, so that the border of the image, which
    has no other window, is not lost.
    """
    centres = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    return (math.pi * centres).sin().square().float()


@torch.no_grad()
def tiled_classes(image: Tensor, predict: Predict, tiling: Tiling, batch_size: int) -> NDArray[np.uint8]:
    """Predict an image window by window, and return the most probable class of every pixel.

    Where windows overlap, their probabilities are added with a weight that falls towards each window's border, where
    a prediction knows least about what is around it. Probabilities, because a window that is wrong and sure of it
    outvotes others by its logits. The sum of the weights is the same for all classes, so it is not divided by.

    Beside the image and the result there is one row of windows in memory, float32 ``(K, tile height, W)``: rows that no
    further window touches are turned into class ids at once.

    Args:
        image: uint8 ``(C, H, W)``.
        predict: What the model makes of windows.
        tiling: Where the windows lie. Along a side that is shorter than a window they are as long as the image.
        batch_size: Windows that are predicted at once.

    Returns:
        Class ids, uint8 ``(H, W)``.
    """
    size = (image.shape[-2], image.shape[-1])
    height, width = (min(sides) for sides in zip(tiling.tile, size, strict=True))
    corners = tiling.corners(size)
    band: _Band | None = None
    for first in range(0, len(corners), batch_size):
        some = corners[first : first + batch_size]
        windows = torch.stack([image[:, top : top + height, left : left + width] for top, left in some])
        for (top, left), probabilities in zip(some, predict(windows), strict=True):
            band = band or _Band(probabilities, size)
            band.add(probabilities, top, left)
    assert band is not None  # every image has a window
    return band.finished()


class _Band:
    """The weighted sum of the probabilities of one row of windows, which moves down the image.

    Args:
        like: Probabilities ``(K, h, w)`` of a window.
        size: Height and width of the image.
    """

    def __init__(self, like: Tensor, size: Size) -> None:
        classes, self.height, width = like.shape
        self.top = 0
        self.sums = torch.zeros(classes, self.height, size[1], device=like.device)
        self.weight = (hann(self.height)[:, None] * hann(width)).to(like.device)
        self.classes: NDArray[np.uint8] = np.empty(size, np.uint8)

    def add(self, probabilities: Tensor, top: int, left: int) -> None:
        """Add a window; those of one row come behind each other."""
        if top > self.top:
            self._finish(top - self.top)
        self.sums[:, :, left : left + probabilities.shape[2]].addcmul_(probabilities, self.weight)

    def _finish(self, rows: int) -> None:
        """Turn so many rows at the top into class ids, and move the others up."""
        self._write(rows)
        for first in range(0, self.height, rows):  # block by block, which needs no copy of the whole
            following = self.sums[:, first + rows : first + 2 * rows]
            self.sums[:, first : first + following.shape[1]] = following
        self.sums[:, self.height - rows :] = 0
        self.top += rows

    def _write(self, rows: int) -> None:
        found = self.sums[:, :rows].max(0).indices.to(torch.uint8)
        self.classes[self.top : self.top + rows] = found.cpu().numpy()

    def finished(self) -> NDArray[np.uint8]:
        """The class ids of the whole image."""
        self._write(self.height)
        return self.classes
