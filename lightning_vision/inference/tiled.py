"""Masks of large images: the windows of a file through a model, as images go through it in training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.data.decode import decode_whole, resize_pixels
from lightning_vision.errors import DataError
from lightning_vision.inference.tiling import Tiling, tiled_classes

if TYPE_CHECKING:
    from lightning_vision.data.datamodule import VisionDataModule
    from lightning_vision.head import Head
    from lightning_vision.module import VisionModule


class TiledImages:
    """The masks that a model predicts for images that are larger than a window.

    Every window is scaled to the size of the training images (a window of that size is taken as it is), and its logits
    are scaled back, so that tiles without overlap give what the model says of each tile as an image of its own. A
    window that is shorter than a tile, of an image that is, keeps the scale: its edge is repeated, and cut off again.

    Args:
        module: The model; on its device, in eval mode.
        data: The images.
        tiling: Height, width and overlap of the windows.
    """

    def __init__(self, module: VisionModule, data: VisionDataModule, tiling: Tiling) -> None:
        self.module = module
        self.data = data
        self.tiling = tiling
        # A sample has one mask, so one output predicts them.
        self.output, self.head = next((name, head) for name, head in module.named_heads() if has_mask(head))

    def mask(self, row: int) -> NDArray[np.uint8] | None:
        """Class ids of a row of the index, uint8 ``(H, W)`` at the size of its file.

        Returns:
            None for an image that fits into one tile: it is predicted as all others are.

        Raises:
            DataError: The image cannot be read; or the images of a sample are not of one size.
        """
        if self.tiling.fits(self.data.original_size(row)):
            return None
        return tiled_classes(self._image(row), self._probabilities, self.tiling, self.data.eval_batch_size)

    def _image(self, row: int) -> Tensor:
        """All images of a sample behind each other, uint8 ``(C, H, W)`` at the size of their files."""
        paths = [column[row] for column in self.data.index.images]
        images = [decode_whole(path, self.data.geometry.num_channels) for path in paths]
        for path, image in zip(paths, images, strict=True):
            if image.shape != images[0].shape:
                height, width = images[0].shape[-2:]
                raise DataError(
                    f"{path}: not the size of the other images of its sample, so tiles do not show the same place",
                    given=f"{image.shape[-2]} x {image.shape[-1]} pixels (height x width)",
                    expected=f"{height} x {width}, as {paths[0]}",
                    override="tile=null",
                )
        return images[0] if len(images) == 1 else torch.cat(images)

    def _probabilities(self, windows: Tensor) -> Iterator[Tensor]:
        """What the model makes of windows uint8 ``(B, C, h, w)``, window by window: ``(K, h, w)``."""
        geometry, (height, width) = self.data.geometry, self.tiling.tile
        pixels = padded(windows, self.tiling.tile)
        pixels = resize_pixels(pixels, (geometry.height, geometry.width), self.data.preprocessing.resize.filter)
        with self.module.trainer.precision_plugin.forward_context():
            outputs = self.module.outputs(pixels.to(self.module.device))[self.output]
        rows, columns = windows.shape[-2:]
        for i in range(len(windows)):  # at the size of a tile one at a time: all of them would be larger than the band
            logits = outputs.logits[i : i + 1].float()
            if logits.shape[-2:] != (height, width):
                logits = F.interpolate(logits, (height, width), mode="bilinear")
            yield self.head.probabilities(logits[..., :rows, :columns])[0]


def has_mask(head: Head) -> bool:
    """Whether an output predicts a class for every pixel."""
    return head.task.output == "mask"


def padded(windows: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat the last row and column of ``(B, C, h, w)`` until they are as large as a tile."""
    rows, columns = (
        torch.arange(want).clamp(max=have - 1) for want, have in zip(size, windows.shape[-2:], strict=True)
    )
    return windows if windows.shape[-2:] == size else windows[:, :, rows][..., columns]
