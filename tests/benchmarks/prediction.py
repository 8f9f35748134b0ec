"""What the prediction of many files costs: memory that grows with their number, and time beside a bare loop.

Tiny JPEG files (32 x 32 pixels, hard links of a few) through a small network. The growth is that of the resident memory
of this process between the 1,000th and the last image, for a table of classes and for masks. The index of the paths is
there before the first image: some 60 bytes a file. The bare loop decodes the same files one by one with torchvision and
runs the same network on batches of the same size, on one thread, and writes nothing. CPU time.

    python -m tests.benchmarks prediction [number of files] [classes | masks]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchvision.io import ImageReadMode, decode_image

import lightning_vision as lv
from lightning_vision.inference import run
from lightning_vision.inference.progress import Pace

SIZE, BATCH, BARE = 32, 64, 5_000
# Megabytes between the 1,000th and the 100,000th image; CPU time to that of the bare loop, which writes nothing.
# Measured were 2.1 and 4.5 times: these are guards, no floors.
GROWTH, RATIO = 20.0, {"classes": 2.5, "masks": 6.0}


def write_images(folder: Path, count: int) -> Path:
    """Write files of a few contents, in folders of a thousand."""
    rng = np.random.default_rng(0)
    kinds = []
    for i in range(20):
        kinds.append(folder / f"kind_{i}.jpg")
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(kinds[-1])
    images = folder / "images"
    for i in range(count):
        path = images / f"{i // 1000}" / f"photo_{i}.jpg"
        if i % 1000 == 0:
            path.parent.mkdir(parents=True)
        os.link(kinds[i % len(kinds)], path)
    return images


def model(kind: str, folder: Path) -> Any:
    """A small network as it is before training."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (12, SIZE, SIZE, 3), np.uint8)
    targets: Any = np.arange(12) % 3 if kind == "classes" else [np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 3] * 12
    if kind == "masks":
        targets = [mask.astype(np.uint8) for mask in targets]
    values = {"output_dir": str(folder), "encoder.out_channels": 8}
    decoder = "classifier" if kind == "classes" else "linear"
    data = (list(images), list(targets))
    module, _ = lv.build(
        encoder="stacked_cnn", decoder=decoder, data=data, image_size=SIZE, batch_size=BATCH, overrides=values
    )
    return module.eval()


def resident() -> float:
    """Megabytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Watched(Pace):
    """Notes the memory at the first thousand images and at the last."""

    seen: dict[int, float] = {}  # noqa: RUF012  # of the class: run.py makes the object

    def reached(self, row: int) -> None:
        """Note the memory."""
        super().reached(row)
        for mark in (1_000, 10_000, 100_000):
            if row >= mark and mark not in self.seen:
                self.seen[mark] = resident()
        self.seen[-1] = resident()


def bare_seconds(module: Any, files: list[Path]) -> float:
    """CPU seconds of decoding and forward passes."""
    start = time.process_time()
    with torch.inference_mode():
        for first in range(0, len(files), BATCH):
            batch = [decode_image(str(f), ImageReadMode.RGB) for f in files[first : first + BATCH]]
            module(torch.stack(batch))
    return time.process_time() - start


def measure(kind: str, images: Path, count: int, folder: Path) -> list[str]:
    """One row of the table."""
    module = model(kind, folder)
    files = sorted(images.rglob("*.jpg"))[:BARE]
    bare_seconds(module, files[:500])
    bare = bare_seconds(module, files) / len(files)
    run.Pace = Watched  # type: ignore[misc]
    Watched.seen = {}
    settings = {**module.config, "save": []}
    start, clock = time.process_time(), time.monotonic()
    run.predict_to_folder(module, str(images), settings)
    ours, rate = (time.process_time() - start) / count, count / (time.monotonic() - clock)
    seen = Watched.seen
    growth = seen[-1] - seen[1_000]
    holds = growth <= GROWTH * max(1, count / 100_000) and ours <= RATIO[kind] * bare
    memory = ", ".join(f"{value:.0f}" for mark, value in seen.items() if mark > 0)
    costs = [f"{1e3 * ours:.3f} ms", f"{1e3 * bare:.3f} ms", f"{ours / bare:.2f}"]
    return [kind, f"{memory}, {seen[-1]:.0f} MB", f"{growth:.1f} MB", *costs, f"{rate:.0f}", "yes" if holds else "NO"]


def main(count: int, kinds: list[str]) -> int:
    columns = ("output", "memory at 1k, 10k, 100k, end", "growth", "CPU an image", "bare loop", "ratio", "images/s")
    table = Table(*columns, "holds")
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder), count)
        rows = [measure(kind, images, count, Path(folder) / kind) for kind in kinds]
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)
    return 0 if all(row[-1] == "yes" for row in rows) else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    sys.exit(main(number, sys.argv[2:] or ["classes", "masks"]))
