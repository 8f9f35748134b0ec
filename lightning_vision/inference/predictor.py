"""Predictions one by one, while the batches go by: memory stays bounded however many images there are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.head import HeadOutput
from lightning_vision.inference.prediction import Place, Prediction
from lightning_vision.module import VisionModule


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
        """Turn the outputs of a batch into predictions."""
        assert isinstance(pl_module, VisionModule)
        data: VisionDataModule = trainer.datamodule  # type: ignore[attr-defined]
        rows, found = outputs
        for i, row in enumerate(rows.tolist()):
            # All images of a sample, since the first alone may stand in many rows.
            path = " + ".join(column[row] for column in data.index.images)
            place = Place(path, partial(data.original_size, row), data.preprocessing.resize)
            predictions = {
                name: head.task.prediction(head, _sample(found[name], i), place)
                for name, head in pl_module.named_heads()
            }
            single = len(predictions) == 1
            self.receive(next(iter(predictions.values())) if single else Prediction(path, outputs=predictions))


def _sample(output: HeadOutput, i: int) -> HeadOutput:
    return HeadOutput(output.logits[i], None if output.hidden is None else output.hidden[i])
