"""The confusion matrix's update beside one ``torch.bincount`` of as many int64 numbers.

    OMP_NUM_THREADS=1 python tests/benchmarks/metrics.py

Eight masks of 256 x 256 pixels with 21 classes and ignored pixels, as bytes like those of a batch; the predicted
classes are given.
"""

from __future__ import annotations

import sys

import torch
from _table import Figure, cpu_seconds, measure

from lightning_vision.metrics import EpochScores, PerImageConfusion

SHAPE, CLASSES, IGNORED = (8, 256, 256), 21, 255
TIMES = 40


def main() -> bool:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(0, CLASSES, SHAPE, generator=generator)
    cells = (torch.randint(0, CLASSES, SHAPE, generator=generator) * CLASSES + predicted).flatten()
    target = torch.randint(0, CLASSES, SHAPE, generator=generator, dtype=torch.uint8)
    target[torch.rand(SHAPE, generator=generator) < 0.05] = IGNORED
    scores = EpochScores(CLASSES, IGNORED)
    images = PerImageConfusion(CLASSES, IGNORED, max_images=10**9, max_bytes=2**62)

    def collect() -> None:
        images.update(predicted, target)
        images.reset()

    def many(work: object) -> float:
        return cpu_seconds(lambda: [work() for _ in range(TIMES)]) / TIMES

    def bincount() -> float:
        return many(lambda: torch.bincount(cells, minlength=CLASSES**2))

    return measure(
        [
            Figure(
                "confusion matrix update / bincount",
                lambda: many(lambda: scores.update(predicted, target)),
                bincount,
                1.5,
            ),
            Figure("confusion matrix of each image / bincount", lambda: many(collect), bincount, 1.5),
        ],
        repeats=15,
    )


if __name__ == "__main__":
    sys.exit(not main())
