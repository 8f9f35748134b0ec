"""A 6000 x 4000 photograph with 11 classes in tiles: its peak memory and its time, beside what neither can be without.

A U-Net on mobilenetv2 with random weights, input 256 x 256, tiles of 512 pixels with an overlap of a quarter (176
windows), 8 at a time; through ``predict``, from the JPEG to the class ids.

- memory: how far the process grows above what it takes for one forward of 8 windows, beside the bytes of the image, its
  classes and one row of windows in float32. All that is decoded lies twice in memory for a moment, before its channels
  are those of the model.
- time: CPU time beside that of a bare forward over as many windows that lie in memory, 8 at a time.

Every measurement is a process of its own. Nine minutes of CPU time at most.

    python -m tests.benchmarks tiles [repeats]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _table import Figure, measure
from PIL import Image

from lightning_vision.testing.datasets import mask_table

HEIGHT, WIDTH, CLASSES, TILE, SIZE, BATCH = 4000, 6000, 11, 512, 256, 8
MB = 1e6


def write_image(path: Path) -> None:
    """Write smooth colours with some noise, as a photograph has."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (HEIGHT // 100, WIDTH // 100, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(colours).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.int16)
    noise = rng.integers(-8, 9, (HEIGHT, WIDTH, 1), np.int16)
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def once(what: str, folder: str) -> None:
    """In a process of its own: print CPU seconds and how many bytes the peak grew."""
    import torch

    import lightning_vision as lv
    from lightning_vision.allocator import keep_freed_memory
    from lightning_vision.inference.tiling import Tiling

    keep_freed_memory()
    torch.set_num_threads(1)
    root = Path(folder)
    values = {"data.path": str(root / "index.csv"), "encoder.use_pretrained": False}
    given = {"encoder": "mobilenetv2", "decoder": "unet", "data": "table", "image_size": SIZE, "batch_size": BATCH}
    module = lv.build(**given, overrides={**values, "trainer.accelerator": "cpu"})[0].eval()
    lv.predict(module, root / "images" / "0.png")  # what the first prediction imports
    windows = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8)
    with torch.inference_mode():
        module(windows)
        before, start = peak(), time.process_time()
        if what == "forward":
            for _ in range(0, len(Tiling((TILE, TILE), 0.25).corners((HEIGHT, WIDTH))), BATCH):
                module(windows)
        else:
            (prediction,) = lv.predict(module, root / "large.jpg", tile=TILE)
            assert prediction.mask is not None
            assert prediction.mask.shape == (HEIGHT, WIDTH)
    print(time.process_time() - start, peak() - before)


def peak() -> int:
    """Bytes of the largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(what: str, folder: str) -> tuple[float, float]:
    """CPU seconds, and bytes of memory, of one of the two."""
    command = [sys.executable, __file__, what, folder]
    seconds, size = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
    return float(seconds), float(size)


def main(repeats: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_image(root / "large.jpg")
        mask_table(root, 6, CLASSES, SIZE, SIZE)
        bounded = HEIGHT * WIDTH * 4 + CLASSES * TILE * WIDTH * 4
        print(f"the probabilities of all pixels would take {HEIGHT * WIDTH * CLASSES * 4 / MB:.0f} MB")
        return measure(
            [
                Figure(
                    "memory, 6000 x 4000 in tiles",
                    lambda: measured("predict", folder)[1] / MB,
                    lambda: bounded / MB,
                    2.0,
                    "MB",
                ),
                Figure(
                    "time, 6000 x 4000 in tiles / bare forward",
                    lambda: measured("predict", folder)[0],
                    lambda: measured("forward", folder)[0],
                    1.5,
                ),
            ],
            repeats,
        )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        once(*sys.argv[1:])
    else:
        sys.exit(not main(int(sys.argv[1]) if len(sys.argv) == 2 else 3))
