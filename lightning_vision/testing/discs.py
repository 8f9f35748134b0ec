"""A tiny real data set for tests: a table of images with a disc, its mask and its label."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def write_discs(folder: Path, count: int = 40, ignore_index: int | None = 255) -> Path:
    """Write images of two sizes, PNG and JPEG, each with a red or blue disc on a dark ground.

    Three fifths are for training, one fifth each for validation and test. Masks hold 0 (background), 1 (blue), 2 (red)
    and two rows of the ignored value.

    Args:
        folder: Where to write; it is made.
        count: Number of images.
        ignore_index: Value of the first two rows of every mask; None leaves them background.

    Returns:
        The table ``index.csv`` with columns image, mask, label, split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        height, width = (60, 70) if i % 3 else (47, 81)
        image = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
        y, x = np.mgrid[:height, :width]
        disc = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (10 + 2 * (i % 5)) ** 2
        image[disc] = (250, 60, 60) if i % 2 else (60, 60, 250)
        mask = disc.astype(np.uint8) * (1 + i % 2)
        if ignore_index is not None:
            mask[:2] = ignore_index
        name = f"{i}.png" if i % 4 else f"{i}.jpg"
        Image.fromarray(image).save(folder / name, quality=95)
        Image.fromarray(mask).save(folder / f"{i}_mask.png")
        split = "train" if i < 0.6 * count else "val" if i < 0.8 * count else "test"
        rows.append([name, f"{i}_mask.png", ("blue", "red")[i % 2], split])
    table = folder / "index.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "mask", "label", "split"], *rows])
    return table
