"""Predictions one by one, while the batches go by: memory stays bounded however many images there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor

from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.data.placement import Resize
from lightning_vision.inference.restore import restore_size
from lightning_vision.module import VisionModule
from lightning_vision.types import TargetSpec


@dataclass
class Prediction:
    """What is predicted for one image.

    Args:
        path: The image's file.
        label: Name of the most probable class; None for a mask.
        probabilities: ``(C,)`` float32 in the order of the class names, sum 1; None for a mask.
        mask: ``(H, W)`` uint8 class ids at the image's own size; None for a label. Pixels without a prediction (cut
            away by ``crop_or_pad`` or ``resize_crop``) hold the ignored value, or 255 where there is none.
    """

    path: str
    label: str | None = None
    probabilities: NDArray[np.float32] | None = None
    mask: NDArray[np.uint8] | None = None


def to_label(path: str, logits: Tensor, target: TargetSpec) -> Prediction:
    """Turn the logits ``(C,)`` of one image into class probabilities."""
    probabilities = logits.softmax(0).cpu().numpy()
    return Prediction(path, label=target.class_names[int(probabilities.argmax())], probabilities=probabilities)


def to_mask(path: str, logits: Tensor, target: TargetSpec, size: tuple[int, int], resize: Resize) -> Prediction:
    """Turn the logits ``(C, h, w)`` of one image into its class map at ``size``, (height, width)."""
    resized = restore_size(logits, size, resize)
    mask = resized.max(0).indices.to(torch.uint8)
    if resize.method != "interpolate":
        unknown = 255 if target.ignore_index is None else target.ignore_index
        mask[resized.isnan().any(0)] = unknown
    return Prediction(path, mask=mask.cpu().numpy())


class PredictionStream(Callback):
    """Hand every prediction to a function, in the order of the rows.

    Args:
        receive: Called with each Prediction.
    """

    def __init__(self, receive: Callable[[Prediction], None]) -> None:
        self.receive = receive

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Turn a batch of logits into predictions."""
        assert isinstance(pl_module, VisionModule)
        data: VisionDataModule = trainer.datamodule  # type: ignore[attr-defined]
        target = pl_module.task.target
        rows, logits = outputs
        for row, sample in zip(rows.tolist(), logits, strict=True):
            path = str(data.index.image_path(row))
            if target.kind == "label":
                # All images of a sample, since the first alone may stand in many rows.
                paths = " + ".join(column[row] for column in data.index.images)
                self.receive(to_label(paths, sample, target))
            else:
                size = data.original_size(row)
                self.receive(to_mask(path, sample, target, size, data.preprocessing.resize))
