"""CamVid with pretrained MobileNetV2 and the U-Net decoder: which loss gives which mean IoU on the same budget.

The runs differ in the loss alone: settings of ``camvid.py`` (15 epochs of batches of 8 at 192 x 256). Each is scored
with its best checkpoint by validation. The limit is cross-entropy, which all others claim to improve on.

    LIGHTNING_VISION_DATA=FOLDER python -m tests.benchmarks camvid_losses [number of seeds] [losses ...]

About 6 minutes of CPU time a loss and seed.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import lightning_vision

LOSSES = ("softmax_cross_entropy", "focal_loss", "dice_loss", "lovasz_softmax_loss", "ce_dice")
EPOCHS, BATCH, SIZE, IGNORE = 15, 8, [192, 256], 11
FIGURES = ("mean_iou", "mean_iou_original", "dice", "pixel_accuracy", "mean_accuracy")


def scored(loss: str, root: Path, seed: int) -> dict[str, float]:
    """Figures of the test split, and CPU seconds of the fit."""
    camvid = root / "data" / "camvid"
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = lightning_vision.fit(
            encoder="mobilenetv2",
            decoder="unet",
            loss=loss,
            data="table",
            augmentation="random_horizontal_flip",
            image_size=SIZE,
            batch_size=BATCH,
            epochs=EPOCHS,
            encoder_lr_factor=0.1,
            seed=seed,
            overrides={
                "data.path": str(camvid / "index.csv"),
                "data.class_names": str(camvid / "classes.txt"),
                "data.ignore_index": IGNORE,
                "encoder.weights": str(root / "weights" / "mobilenet_v2-tflite_quant.safetensors"),
                "output_dir": folder,
            },
        ).metrics
    return {name: found[f"test/{name}"] for name in FIGURES} | {"CPU s": time.process_time() - start}


def main(seeds: int, losses: tuple[str, ...]) -> None:
    root = Path(os.environ["LIGHTNING_VISION_DATA"])
    rows: dict[str, list[dict[str, float]]] = {loss: [] for loss in losses}
    for seed in range(seeds):
        for loss in losses:
            rows[loss].append(scored(loss, root, seed))
            print(loss, "seed", seed, *(f"{k} {v:.4f}" for k, v in rows[loss][-1].items()), flush=True)
    table = Table("loss", *FIGURES, "CPU s", "mean_iou / cross-entropy's")
    limit = statistics.mean(row["mean_iou"] for row in rows[losses[0]])
    for loss, found in rows.items():
        means = {name: statistics.mean(row[name] for row in found) for name in found[0]}
        cells = [f"{value:.0f}" if name == "CPU s" else f"{value:.4f}" for name, value in means.items()]
        table.add_row(loss, *cells, f"{means['mean_iou'] / limit:.3f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    words = sys.argv[1:]
    count = int(words.pop(0)) if words and words[0].isdigit() else 3
    main(count, tuple(words) or LOSSES)
