"""The pictures and tables of a run, from its folder and its model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.module import VisionModule
from lightning_vision.reports.confusion import plot_confusion
from lightning_vision.reports.curves import plot_curves
from lightning_vision.reports.palette import class_palette
from lightning_vision.reports.sheet import label_sheet, mask_sheet
from lightning_vision.reports.table import final_table
from lightning_vision.types import Batch, Split

LABEL_SAMPLES, MASK_SAMPLES = 12, 6


def report_pictures(folder: Path, monitor: str) -> None:
    """Draw the learning curves, if an epoch was finished."""
    metrics = folder / "metrics.csv"
    if metrics.is_file():
        plot_curves(metrics, folder / "plots" / "curves.png", monitor, "min" if monitor.endswith("loss") else "max")


def report_figures(
    folder: Path, module: VisionModule, data: VisionDataModule, split: Split, metrics: dict[str, float]
) -> None:
    """Draw the confusion matrix and the sheet of samples of a scored split, and print its figures."""
    plots = folder / "plots"
    computed = module.results[split]
    names = module.task.target.class_names
    plot_confusion(computed["confusion"].cpu().numpy(), names, plots / "confusion.png")
    # Evenly over the split: the first rows are often all of one class.
    rows = data.index.rows(split)
    samples = MASK_SAMPLES if module.task.target.kind == "mask" else LABEL_SAMPLES
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, samples).round().astype(int))]
    draw_sheet(module, data, rows, plots / "predictions.png")
    overall = {k: v for k, v in metrics.items() if k.startswith(f"{split}/") and k.count("/") == 1}
    final_table(overall, module.task.per_class(computed), f"{split} split", Console())
    print(f"figures and pictures: {folder}")


def draw_sheet(module: VisionModule, data: VisionDataModule, rows: NDArray[np.int64], out: Path) -> None:
    """Draw image, truth and prediction of some rows, at the network's input size."""
    batch = data.batch(rows)
    logits = _predict(module, batch)
    inputs = batch["image"].unflatten(1, (module.geometry.num_inputs, -1))
    # Side by side where a sample has several images; a mask belongs to the first.
    shown = inputs[:, :1] if module.task.target.kind == "mask" else inputs
    images = shown.permute(0, 3, 1, 4, 2).flatten(2, 3).numpy()
    truths = batch["target"].numpy()
    target = module.task.target
    titles = [Path(data.index.image_path(int(row))).name for row in batch["index"]]
    if target.kind == "mask":
        predicted = logits.max(1).indices.to(torch.uint8).numpy()
        palette = class_palette(target.num_classes, target.palette)
        samples = list(zip(images, truths, predicted, titles, strict=True))
        mask_sheet(samples, target.class_names, palette, target.ignore_index, out)
        return
    probabilities, predicted_ids = logits.softmax(1).max(1)
    label_sheet(
        [
            (image, target.class_names[truth], target.class_names[guess], probability, title)
            for image, truth, guess, probability, title in zip(
                images, truths.tolist(), predicted_ids.tolist(), probabilities.tolist(), titles, strict=True
            )
        ],
        out,
    )


@torch.no_grad()
def _predict(module: VisionModule, batch: Batch) -> torch.Tensor:
    was_training = module.training
    module.eval()
    logits = module(batch["image"].to(module.device)).float().cpu()
    module.train(was_training)
    return logits
