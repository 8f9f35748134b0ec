"""A scored split, as the pictures of a task need it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.head import Head, HeadOutput
from lightning_vision.module import VisionModule
from lightning_vision.reports.per_image import PerImageTable
from lightning_vision.types import Batch, Split


@dataclass(frozen=True)
class Picture:
    """A picture of a run, and what it shows.

    Args:
        path: PNG file.
        title: A few words.
        text: A sentence or two for those who look at it.
    """

    path: Path
    title: str
    text: str


@dataclass(frozen=True)
class Scored:
    """A scored split.

    Args:
        module: The model.
        name: Name of the output.
        data: The data.
        split: The rows of the data that were scored.
        called: The name of the figures.
        records: What was noted of each image.
        plots: Folder of the pictures.
    """

    module: VisionModule
    name: str
    data: VisionDataModule
    split: Split
    called: str
    records: PerImageTable
    plots: Path

    @property
    def head(self) -> Head:
        """The head of the output."""
        return self.module.head(self.name)

    @property
    def computed(self) -> dict[str, Tensor]:
        """What the counter of the split came to."""
        return self.head.results[self.called]

    @property
    def worst(self) -> NDArray[np.int64]:
        """The rows of the worst images, the worst first."""
        return self.records.worst(self.name)

    @property
    def prominent(self) -> NDArray[np.int64]:
        """The rows of the images that are shown beside them."""
        return self.records.prominent(self.name)

    def spread(self, count: int) -> NDArray[np.int64]:
        """At most ``count`` rows, evenly over the split: the first ones are often all of one class."""
        rows = self.data.index.rows(self.split)
        return rows[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]

    @torch.no_grad()
    def predict(self, rows: NDArray[np.int64]) -> tuple[Batch, HeadOutput]:
        """Load some rows and return them with the head's output, in float32 on the CPU."""
        batch = self.data.batch(rows)
        module = self.module
        was_training = module.training
        module.eval()
        output = module.outputs(batch["image"].to(module.device))[self.name]
        module.train(was_training)
        hidden = None if output.hidden is None else output.hidden.float().cpu()
        return batch, HeadOutput(output.logits.float().cpu(), hidden)

    def shown(self, batch: Batch, first: bool = False) -> NDArray[np.uint8]:
        """The images ``(B, H, W, C)`` of a batch; where a sample has several, side by side, or the first alone."""
        inputs = batch["image"].unflatten(1, (self.module.geometry.num_inputs, -1))
        images: NDArray[np.uint8] = (inputs[:, :1] if first else inputs).permute(0, 3, 1, 4, 2).flatten(2, 3).numpy()
        return images

    def titles(self, batch: Batch) -> list[str]:
        """The file name of each image."""
        return [Path(self.data.index.image_path(int(row))).name for row in batch["index"]]
