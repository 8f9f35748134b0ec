"""The pictures of a segmentation: confusion matrix, sheets of samples at the network's input size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_vision import metrics
from lightning_vision.metrics.confusion import confusion_counts
from lightning_vision.reports.confusion import plot_confusion
from lightning_vision.reports.palette import class_palette
from lightning_vision.reports.scored import Picture, Scored
from lightning_vision.reports.sheet import MaskSample, mask_sheet

SAMPLES, BEST = 6, 3
CONFUSION = "Pixels: each row is a true class, each column what was predicted for it; the diagonal is right."
WORST = (
    "The images with the lowest mean IoU of their own classes, the worst first. A small object that is missed counts "
    "as much there as the whole sky."
)
SHEETS = {
    "worst": ("The worst images", WORST),
    "best": ("The best images", "The images with the highest mean IoU, the best first."),
    "predictions": (
        "A sample of the predictions",
        "Images taken evenly from the whole split, good and bad as they come.",
    ),
}


def draw(scored: Scored) -> list[Picture]:
    """Write ``confusion.png``, ``worst.png``, ``best.png`` and ``predictions.png``."""
    target = scored.head.task.target
    plot_confusion(scored.computed["confusion"].cpu().numpy(), target.class_names, scored.plots / "confusion.png")
    pictures = [Picture(scored.plots / "confusion.png", "Confusion matrix", CONFUSION)]
    palette = class_palette(target.num_classes, target.palette)
    rows = {"worst": scored.worst[:SAMPLES], "best": scored.prominent[:BEST], "predictions": scored.spread(SAMPLES)}
    for name, (title, text) in SHEETS.items():
        if len(rows[name]):
            out = scored.plots / f"{name}.png"
            mask_sheet(_samples(scored, rows[name]), target.class_names, palette, target.ignore_index, out)
            pictures.append(Picture(out, title, text))
    return pictures


def _samples(scored: Scored, rows: NDArray[np.int64]) -> list[MaskSample]:
    target = scored.head.task.target
    batch, output = scored.predict(rows)
    truths = scored.head.target(batch)
    assert truths is not None
    predicted = output.logits.max(1).indices.to(torch.uint8)
    titles = []
    for title, truth, guess in zip(scored.titles(batch), truths, predicted, strict=True):
        confusion = confusion_counts(guess, truth, target.num_classes, target.ignore_index)
        mean = metrics.iou(confusion).nanmean().item()
        titles.append(title if np.isnan(mean) else f"{title}: mean IoU {mean:.3f}")
    # A mask belongs to the first of several images.
    return list(zip(scored.shown(batch, first=True), truths.numpy(), predicted.numpy(), titles, strict=True))
