"""The pictures of a segmentation: confusion matrix, sheet of samples at the network's input size."""

from __future__ import annotations

import torch

from lightning_vision.reports.confusion import plot_confusion
from lightning_vision.reports.palette import class_palette
from lightning_vision.reports.scored import Scored
from lightning_vision.reports.sheet import mask_sheet

SAMPLES = 6


def draw(scored: Scored) -> None:
    """Write ``confusion.png`` and ``predictions.png``."""
    target = scored.head.task.target
    plot_confusion(scored.computed["confusion"].cpu().numpy(), target.class_names, scored.plots / "confusion.png")
    batch, output = scored.predict(scored.spread(SAMPLES))
    truths = scored.head.target(batch)
    assert truths is not None
    predicted = output.logits.max(1).indices.to(torch.uint8).numpy()
    # A mask belongs to the first of several images.
    samples = list(zip(scored.shown(batch, first=True), truths.numpy(), predicted, scored.titles(batch), strict=True))
    palette = class_palette(target.num_classes, target.palette)
    mask_sheet(samples, target.class_names, palette, target.ignore_index, scored.plots / "predictions.png")
