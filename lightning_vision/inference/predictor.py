"""Predictions one by one, while the batches go by: memory stays bounded however many images there are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.errors import DataError
from lightning_vision.head import HeadOutput, Predicted
from lightning_vision.inference.images import Part
from lightning_vision.inference.prediction import Place, Prediction
from lightning_vision.inference.tiled import TiledImages
from lightning_vision.module import VisionModule


class Receiver(Protocol):
    """What predictions are handed to, in the order of the images."""

    def receive(self, prediction: Prediction) -> None:
        """Take the prediction of one image."""

    def left_out(self, path: str, reason: str) -> None:
        """Take note of an image that cannot be read."""

    def reached(self, row: int) -> None:
        """Take note that all images of the source before this one are dealt with."""


class PredictionStream(Callback):
    """Hand every prediction to a receiver, in the order of the rows.

    Args:
        receiver: Takes them.
        probabilities: Give those of every pixel too.

    Attributes:
        part: The images that are predicted.
    """

    def __init__(self, receiver: Receiver, probabilities: bool = False) -> None:
        self.receiver = receiver
        self.probabilities = probabilities
        self.part: Part | None = None

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Turn the outputs of a batch into predictions."""
        assert isinstance(pl_module, VisionModule)
        assert self.part is not None
        data: VisionDataModule = trainer.datamodule  # type: ignore[attr-defined]
        tiled = None if pl_module.tiling is None else TiledImages(pl_module, data, pl_module.tiling)
        for i, row in enumerate(outputs.rows.tolist()):
            try:
                mask = None if tiled is None else tiled.mask(row)
            except DataError as error:
                data.leave_out(row, error)
                continue
            masks = {} if tiled is None or mask is None else {tiled.output: mask}
            self.receiver.receive(self._prediction(pl_module, data, outputs, i, row, masks))
        for path, reason in data.take_bad():
            self.receiver.left_out(path, reason)
        done = min((batch_idx + 1) * data.eval_batch_size, len(self.part.index))
        self.receiver.reached(self.part.first + done)

    def _prediction(
        self,
        module: VisionModule,
        data: VisionDataModule,
        predicted: Predicted,
        i: int,
        row: int,
        masks: Mapping[str, NDArray[np.uint8]],
    ) -> Prediction:
        """What is predicted for sample ``i`` of a batch; ``masks``: of outputs that were predicted in tiles."""
        assert self.part is not None
        # All images of a sample, since the first alone may stand in many rows.
        path = file = " + ".join(column[row] for column in data.index.images)
        if self.part.names is not None:
            path = self.part.names[row]
        place = Place(path, partial(data.original_size, row), data.preprocessing.resize, self.probabilities)
        found = {
            name: Prediction(path, mask=masks[name])
            if name in masks
            else head.task.prediction(head, _sample(predicted.outputs[name], i), place)
            for name, head in module.named_heads()
        }
        for prediction in found.values():
            prediction.file = "" if file == path else file
        result = next(iter(found.values())) if len(found) == 1 else Prediction(path, outputs=found)
        if predicted.embedding is not None:
            result.embedding = predicted.embedding[i].cpu().numpy()
        return result


def _sample(output: HeadOutput, i: int) -> HeadOutput:
    return HeadOutput(output.logits[i], None if output.hidden is None else output.hidden[i])
