"""JPEGs to 224 x 224: ours beside the bare torchvision calls and beside Pillow; CPU time of one thread.

photos: the published ImageNet files of ``decode_bench``. phone: mosaics of them, 2000 x 1500, quality 90, 4:2:0. Both
are read from disk each time. Pillow's decode and bilinear resize is also what the pixels are compared with: the 5th
percentile of the PSNR over the files.

    LIGHTNING_VISION_DATA=FOLDER OMP_NUM_THREADS=1 python tests/benchmarks/decode.py

About half a minute.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from _table import Figure, cpu_seconds, measure
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import ImageReadMode, read_file
from torchvision.io import decode_image as bare_decode

from lightning_vision.allocator import keep_freed_memory
from lightning_vision.data.decode import decode_image
from lightning_vision.data.headers import read_header
from lightning_vision.types import Geometry

SIZE = 224
GEOMETRY = Geometry(SIZE, SIZE, 3)
Decode = Callable[[Path], Tensor]


def exact(path: Path) -> Tensor:
    return decode_image(path, GEOMETRY)


def inexact(path: Path) -> Tensor:
    return decode_image(path, GEOMETRY, exact_decode=False)


def bare(path: Path) -> Tensor:
    pixels = bare_decode(read_file(str(path)), ImageReadMode.RGB)
    return F.interpolate(pixels[None], (SIZE, SIZE), mode="bilinear", antialias=True)[0]


def pillow(path: Path) -> Tensor:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def mosaics(photos: Sequence[Path], folder: Path, count: int = 12, tile: int = 500) -> list[Path]:
    """Write photos of 2000 x 1500: 4 x 3 tiles, each the centre of a photo, which is enlarged if need be."""
    large = [path for path in photos if min(Image.open(path).size) >= tile * 3 // 4]
    draw = random.Random(0)
    paths = []
    for i in range(count):
        mosaic = Image.new("RGB", (4 * tile, 3 * tile))
        for j, path in enumerate(draw.sample(large, 12)):
            with Image.open(path) as photo:
                image = photo.convert("RGB")
            scale = max(1, tile / min(image.size))
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
            left, top = (image.width - tile) // 2, (image.height - tile) // 2
            mosaic.paste(image.crop((left, top, left + tile, top + tile)), (j % 4 * tile, j // 4 * tile))
        paths.append(folder / f"{i}.jpg")
        mosaic.save(paths[-1], quality=90, subsampling="4:2:0")
    return paths


def cost(decode: Decode, paths: Sequence[Path]) -> Callable[[], float]:
    """Milliseconds an image."""

    def work() -> None:
        for path in paths:
            decode(path)

    return lambda: cpu_seconds(work) / len(paths) * 1000


def fidelity(decode: Decode, paths: Sequence[Path]) -> float:
    """5th percentile of the PSNR to Pillow, dB."""
    errors = [float((decode(path).float() - pillow(path).float()).square().mean()) for path in paths]
    return float(np.percentile([10 * np.log10(255**2 / max(error, 1e-6)) for error in errors], 5))


def main() -> int:
    torch.set_num_threads(1)
    keep_freed_memory()  # as every run does
    warnings.simplefilter("ignore")  # torchvision's function tells of its deprecation
    root = Path(os.environ["LIGHTNING_VISION_DATA"])
    folder = next(p for p in (root / "decode_bench", root / "data" / "decode_bench") if p.is_dir())
    # Those that torchvision's function and Pillow would show on their side are left out.
    photos = [path for path in sorted(folder.rglob("*.JPEG")) if read_header(path).orientation == 1]
    with tempfile.TemporaryDirectory() as temporary:
        phone = mosaics(photos, Path(temporary))

        def decibels(name: str, decode: Decode, paths: Sequence[Path], target: float) -> Figure:
            value = fidelity(decode, paths)
            return Figure(name, lambda: value, lambda: 1.0, target, unit="dB", at_least=True)

        def time_of(name: str, decode: Decode, other: Decode, paths: Sequence[Path], target: float) -> Figure:
            return Figure(name, cost(decode, paths), cost(other, paths), target, unit="ms CPU")

        figures = [
            time_of("photos, exact, to torchvision's calls", exact, bare, photos, 1.08),
            time_of("photos, exact, to Pillow", exact, pillow, photos, 1 / 1.4),
            decibels("  PSNR", exact, photos, 55),
            time_of("phone, exact, to torchvision's calls", exact, bare, phone, 1.08),
            time_of("phone, exact_decode=false, to Pillow", inexact, pillow, phone, 1 / 2),
            decibels("  PSNR", inexact, phone, 43),
        ]
        return 0 if measure(figures, repeats=9) else 1


if __name__ == "__main__":
    sys.exit(main())
