"""The three decode modes beside what they cannot undercut: the same decode calls, and a copy of the same bytes.

Images are the published ImageNet files of ``decode_bench``, 224 x 224, batches of 32; the rows of the stores are many
times the processor's caches, and every batch is drawn anew, so that neither side reads what lies in a cache.

    LIGHTNING_VISION_DATA=FOLDER OMP_NUM_THREADS=1 python tests/benchmarks/modes.py

About three minutes; half of it are the 22,000 images whose peak of memory is compared.
"""

from __future__ import annotations

import csv
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _table import Figure, cpu_seconds, measure
from PIL import Image

from lightning_vision.allocator import keep_freed_memory
from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.data.decode import decode_image
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.store import Store
from lightning_vision.module import Normalize
from lightning_vision.types import IMAGENET_STATS, Geometry

SIZE, BATCH, THREADS, STORED = 224, 32, 2, 2000
GEOMETRY = Geometry(SIZE, SIZE, 3)
ROW = (3, SIZE, SIZE)


def photos(root: Path, repeats: int = 1) -> SampleIndex:
    """The real photos, each under ``repeats`` rows."""
    folder = root / "data" / "decode_bench"
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        paths = [
            str(folder / row["image"])
            for row in csv.DictReader(file)
            if min(int(row["width"]), int(row["height"])) >= SIZE
        ]
    paths *= repeats
    return SampleIndex(PackedStrings.from_strings(paths), np.zeros(len(paths), np.uint8))


def data(index: SampleIndex, **settings: Any) -> VisionDataModule:
    return VisionDataModule(index, GEOMETRY, Preprocessing(decode_threads=THREADS, **settings), BATCH, seed=0)


def epoch(module: VisionDataModule) -> None:
    for _ in module.train_dataloader():
        pass


def bare(index: SampleIndex) -> None:
    """The same decode calls by as many threads, one after another, into one buffer each."""
    outs = [torch.empty(ROW, dtype=torch.uint8) for _ in range(THREADS)]

    def some(which: int) -> None:
        for row in range(which, len(index), THREADS):
            decode_image(index.image_path(row), GEOMETRY, out=outs[which])

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(some, range(THREADS)))


def lazy(index: SampleIndex) -> Figure:
    module = data(index)
    return Figure(
        "lazy epoch / bare decode loop",
        lambda: cpu_seconds(lambda: epoch(module)),
        lambda: cpu_seconds(lambda: bare(index)),
        1.08,
    )


def first_epoch(index: SampleIndex, folder: Path) -> Figure:
    module, count = data(index), iter(range(10_000))

    def cached() -> None:
        fresh = data(index, mode="lazy_cached", lazy_cache_dir=str(folder / f"first{next(count)}"))
        epoch(fresh)
        fresh.teardown()

    return Figure(
        "lazy_cached, epoch 1 / lazy epoch",
        lambda: cpu_seconds(cached),
        lambda: cpu_seconds(lambda: epoch(module)),
        1.1,
    )


def later_epochs(index: SampleIndex, folder: Path) -> Figure:
    cached, eager = data(index, mode="lazy_cached", lazy_cache_dir=str(folder / "later")), data(index, mode="eager")
    for module in (cached, eager):
        epoch(module)
    return Figure(
        "lazy_cached, epoch 2 / eager epoch",
        lambda: cpu_seconds(lambda: epoch(cached)),
        lambda: cpu_seconds(lambda: epoch(eager)),
        1.2,
    )


class Rows:
    """A store of random pixels, and rows drawn anew for every batch."""

    def __init__(self, folder: Path, count: int = STORED) -> None:
        self.store = Store(folder, count, {"images": (np.uint8, ROW)})
        pixels = torch.randint(0, 256, ROW, dtype=torch.uint8)
        for slot in range(count):
            self.store.write(slot, {"images": pixels.roll(slot, 2)})
        self.flat = torch.randint(0, 256, (count, *ROW), dtype=torch.uint8)
        self.out = torch.empty((BATCH, *ROW), dtype=torch.uint8)
        self.draw = np.random.default_rng(0)

    def copy(self) -> float:
        """A batch of bytes that lie end to end, copied."""
        first = int(self.draw.integers(0, len(self.flat) - BATCH))
        return cpu_seconds(lambda: self.out.copy_(self.flat[first : first + BATCH]))

    def warm(self) -> float:
        """A batch of shuffled rows."""
        slots = self.draw.integers(0, len(self.store), BATCH)
        return cpu_seconds(lambda: self.store.read(slots, {"images": torch.empty((BATCH, *ROW), dtype=torch.uint8)}))


def repeated(once: Any, times: int = 40) -> Any:
    return lambda: sum(once() for _ in range(times)) / times


def normalised(rows: Rows) -> Figure:
    normalize = Normalize(IMAGENET_STATS)

    def ours() -> float:
        first = int(rows.draw.integers(0, len(rows.flat) - BATCH))
        return cpu_seconds(lambda: normalize(rows.flat[first : first + BATCH]))

    return Figure("normalised float batch / memcpy of the uint8 batch", repeated(ours), repeated(rows.copy), 7)


def faults(normalize: Normalize, batch: torch.Tensor, times: int = 50) -> float:
    """Pages that the system hands out for one normalised batch, in the steady state."""
    for _ in range(5):
        normalize(batch)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        normalize(batch)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / times


def drop_from_cache(path: Path) -> None:
    """Let the kernel forget the pages of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cold(index: SampleIndex, folder: Path) -> Figure:
    """Bytes a second of wall time, of an epoch from a store that is not in memory and of a plain read of its file."""
    module = data(index, mode="lazy_cached", lazy_cache_dir=str(folder / "cold"))
    epoch(module)
    file = next(iter(module.store_folders)) / "images"
    size = file.stat().st_size
    module.teardown()

    def shuffled() -> float:
        module.teardown()
        drop_from_cache(file)
        start = time.perf_counter()
        epoch(module)
        return size / 2**20 / (time.perf_counter() - start)

    def sequential() -> float:
        module.teardown()
        drop_from_cache(file)
        block = bytearray(2**22)
        start = time.perf_counter()
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(block):
                pass
        return size / 2**20 / (time.perf_counter() - start)

    return Figure(
        "cold shuffled epoch / sequential read of the file", shuffled, sequential, 0.5, "MiB/s wall", at_least=True
    )


def peak(count: int) -> None:
    """Print the peak of this process's memory over a lazy epoch of so many images, KiB.

    From /proc: what ``getrusage`` tells includes the process that this one was forked from.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for i in range(50):
            names.append(f"{folder}/{i}.jpg")
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(names[-1])
        index = SampleIndex(PackedStrings.from_strings(names[i % 50] for i in range(count)), np.zeros(count, np.uint8))
        keep_freed_memory()
        epoch(data(index))
    print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1))


def peak_of(count: int) -> float:
    command = [sys.executable, __file__, "--peak", str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


def main(root: Path) -> bool:
    torch.set_num_threads(1)
    some, many = photos(root, 6), photos(root, 24)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = Rows(folder / "rows")
        batch = rows.flat[:BATCH]
        before = faults(Normalize(IMAGENET_STATS), batch)
        keep_freed_memory()
        after = faults(Normalize(IMAGENET_STATS), batch)
        held = measure(
            [
                lazy(some),
                first_epoch(some, folder),
                Figure("lazy_cached, warm shuffled batch / memcpy", repeated(rows.warm), repeated(rows.copy), 1.8),
                later_epochs(some, folder),
                normalised(rows),
                cold(many, folder),
            ],
            repeats=5,
        )
        print(f"pages handed out a normalised batch: {after:.1f}, and {before:.1f} where freed memory goes back")
        held &= measure(
            [
                Figure(
                    "lazy: peak over 20,000 images / over 2,000",
                    lambda: peak_of(20_000),
                    lambda: peak_of(2_000),
                    1.05,
                    "MiB",
                )
            ],
            repeats=1,
        )
    return held


if __name__ == "__main__":
    if "--peak" in sys.argv:
        peak(int(sys.argv[-1]))
    else:
        sys.exit(not main(Path(os.environ["LIGHTNING_VISION_DATA"])))
