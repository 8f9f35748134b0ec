"""Which encoder, frozen or trained: test accuracy on few and on all photos of ``weather``, with real ImageNet weights.

A linear probe (frozen encoder, linear classifier), fine-tuning (encoder with a tenth of the learning rate) and a
``stacked_cnn`` from scratch, on 5, 15, 50 and all 80 photos a class, drawn anew for every seed, at 129 x 129 pixels.
The limit is the probe on the same features outside this project that the data's notes give: 0.95 with all photos.

    LIGHTNING_VISION_DATA=FOLDER python tests/benchmarks/decision_guide.py [number of seeds]

About 12 minutes of CPU time a seed.
"""

from __future__ import annotations

import csv
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import lightning_vision

COUNTS = (5, 15, 50, 80)
LIMIT = 0.95
WEIGHTS = {"mobilenetv2": "mobilenet_v2-tflite_quant.safetensors", "squeezenet": "squeezenet1_1-ncnn_fp16.safetensors"}
PROBE = {"epochs": 30, "lr": 3e-3, "encoder.trainable": False}
TUNED = {"epochs": 10, "lr": 1e-3, "augmentation": "random_horizontal_flip"}
SCRATCH = {"epochs": 20, "lr": 1e-3, "augmentation": "random_horizontal_flip"}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "mobilenetv2, linear probe": ("mobilenetv2", PROBE),
    "mobilenetv2, fine-tuned": ("mobilenetv2", TUNED),
    "squeezenet, linear probe": ("squeezenet", PROBE),
    "squeezenet, fine-tuned": ("squeezenet", TUNED),
    "stacked_cnn, from scratch": ("stacked_cnn", SCRATCH),
}


def draw(source: Path, count: int, seed: int, out: Path) -> Path:
    """Write a table with ``count`` training photos a class; validation and test stay as they are."""
    with (source / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_class: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if row["split"] == "train":
            by_class[row["label"]].append(row)
    chooser = random.Random(seed)
    kept = [row for label in sorted(by_class) for row in chooser.sample(by_class[label], count)]
    kept += [row for row in rows if row["split"] != "train"]
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    return out


def accuracy(root: Path, way: str, count: int, seed: int) -> float:
    encoder, settings = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        values = {
            "data.path": str(draw(root / "data" / "weather", count, seed, Path(folder) / "index.csv")),
            "data.root": str(root / "data" / "weather"),
            "data.target": "label",
            "output_dir": folder,
        }
        if encoder in WEIGHTS:
            values["encoder.weights"] = str(root / "weights" / WEIGHTS[encoder])
        values |= {key: value for key, value in settings.items() if "." in key}
        plain = {key: value for key, value in settings.items() if "." not in key}
        if encoder == "squeezenet":
            values["encoder.model_variant"] = "1_1"
        result = lightning_vision.fit(
            encoder=encoder,
            decoder="classifier",
            data="table",
            image_size=129,
            batch_size=16,
            seed=seed,
            overrides=values,
            **plain,
        )
        return result.metrics["test/accuracy"]


def main(seeds: int) -> None:
    root = Path(os.environ["LIGHTNING_VISION_DATA"])
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    # Interleaved: all ways on one draw before the next draw.
    for seed in range(seeds):
        for count in COUNTS:
            for way in WAYS:
                start = time.process_time()
                found[way, count].append(accuracy(root, way, count, seed))
                seconds[way] += time.process_time() - start
                print("seed", seed, f"{count} a class:", way, f"{found[way, count][-1]:.3f}", flush=True)
    table = Table("way", *(f"{count} a class" for count in COUNTS), "CPU s a run")
    for way in WAYS:
        means = [statistics.mean(found[way, count]) for count in COUNTS]
        table.add_row(way, *(f"{m:.3f}" for m in means), f"{seconds[way] / seeds / len(COUNTS):.0f}")
    Console(width=120).print(table)
    best = max(statistics.mean(found[way, COUNTS[-1]]) for way in WAYS if "probe" in way)
    print(f"figure: linear probe, all photos {best:.3f}, limit {LIMIT}, ratio {best / LIMIT:.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
