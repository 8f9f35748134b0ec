"""Masks scored at the size of their own files, and not at the one that the network saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_vision.data.masks import resize_nearest
from lightning_vision.inference.restore import restore_size
from lightning_vision.types import Batch

if TYPE_CHECKING:
    from lightning_vision.data.datamodule import VisionDataModule


def score_at_original_size(
    scores: Metric,
    logits: Tensor,
    batch: Batch,
    data: VisionDataModule,
    mask_of: Callable[[int], NDArray[np.uint8] | None] | None = None,
) -> None:
    """Count the masks of a batch at the size of their own files.

    Args:
        scores: Gets the logits of each image at that size, and its mask.
        logits: ``(B, C, H, W)``.
        batch: The batch that they are of.
        data: Reads the masks.
        mask_of: The class ids of a row at the size of its image where they do not come from the logits, or None.
    """
    blank = batch["blank"].tolist() if "blank" in batch else [False] * len(logits)
    for row, sample, unread in zip(batch["index"].tolist(), logits, blank, strict=True):
        if unread:
            continue
        mask = torch.as_tensor(data.original_mask(row)).to(logits.device)
        size = (mask.shape[-2], mask.shape[-1])
        predicted = None if mask_of is None else mask_of(row)
        if predicted is not None:
            ids = torch.as_tensor(resize_nearest(predicted, size)).to(mask.device)
            scores.update(ids.unsqueeze(0), mask.unsqueeze(0))
            continue
        resize = data.preprocessing.resize
        if resize.method == "interpolate":
            resized = restore_size(sample, size, resize)
        else:
            # Counted in the image's pixels, where a mask may be coarser or finer.
            resized = restore_size(sample, data.original_size(row), resize)
            resized = nn.functional.interpolate(resized.unsqueeze(0), size, mode="nearest-exact")[0]
        # Pixels that the crop left out have no prediction and are not scored.
        known = ~resized.isnan().any(0)
        scores.update(resized[:, known].unsqueeze(0), mask[known].unsqueeze(0))
