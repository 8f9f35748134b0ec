"""No, light and strong augmentation on real images: what each level gives, and what it costs.

Weather photos (MobileNetV2 fine-tuned), CIFAR-10 (a small network from scratch) and CamVid (U-Net on MobileNetV2), each
with the settings of its experiment; the runs differ in the augmentation alone. Scored with the best checkpoint by
validation on the test split. There is no limit to hold them against: the table says whether it pays.

    LIGHTNING_VISION_DATA=FOLDER python -m tests.benchmarks augmentation_levels [seeds] [weather cifar10 camvid]

About 5 minutes of CPU time a seed for weather and CIFAR-10, 20 for CamVid.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import lightning_vision

LEVELS = ("none", "light", "strong")
WEIGHTS = "mobilenet_v2-tflite_quant.safetensors"
SETS: dict[str, tuple[str, dict[str, Any]]] = {
    "weather": ("accuracy", {"experiment": "weather_fine_tuning"}),
    "cifar10": (
        "accuracy",
        {"data": "folder", "encoder": "stacked_cnn", "decoder": "classifier", "image_size": 32, "epochs": 30},
    ),
    "camvid": ("mean_iou", {"experiment": "camvid_unet"}),
}
PATHS = {"weather": "weather", "cifar10": "cifar10", "camvid": "camvid/index.csv"}


def scored(name: str, level: str, root: Path, seed: int) -> tuple[float, float]:
    """The figure of the test split, and CPU seconds of the fit."""
    figure, choices = SETS[name]
    overrides = {"data.path": str(root / "data" / PATHS[name])}
    if name != "cifar10":
        overrides["encoder.weights"] = str(root / "weights" / WEIGHTS)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        overrides["output_dir"] = folder
        found = lightning_vision.fit(**choices, augmentation=level, seed=seed, overrides=overrides).metrics
    return found[f"test/{figure}"], time.process_time() - start


def main(seeds: int, names: list[str]) -> None:
    root = Path(os.environ["LIGHTNING_VISION_DATA"])
    table = Table("data", "augmentation", "figure", "mean", "of the seeds", "CPU s", "CPU to none")
    for name in names:
        rows: dict[str, list[tuple[float, float]]] = {level: [] for level in LEVELS}
        for seed in range(seeds):
            for level in LEVELS:
                rows[level].append(scored(name, level, root, seed))
                print(name, level, "seed", seed, *(f"{value:.4f}" for value in rows[level][-1]), flush=True)
        base = statistics.median(seconds for _, seconds in rows["none"])
        for level, found in rows.items():
            values, seconds = [value for value, _ in found], statistics.median(s for _, s in found)
            cells = [f"{statistics.mean(values):.3f}", ", ".join(f"{value:.3f}" for value in values)]
            table.add_row(name, level, SETS[name][0], *cells, f"{seconds:.0f}", f"{seconds / base:.2f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    words = sys.argv[1:]
    count = int(words.pop(0)) if words and words[0].isdigit() else 2
    main(count, words or list(SETS))
