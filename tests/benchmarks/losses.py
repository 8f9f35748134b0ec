"""The region losses beside torch's cross-entropy: CPU time of forward and backward, on as many logits as a real batch.

Logits ``(8, 21, 256, 256)`` float32. ``random`` ones are plain noise; ``half`` are right at five pixels of six, as in
the course of a training; ``void``: as ``half``, and a tenth of the pixels is ignored. The cross-entropy ignores the
same pixels.

    OMP_NUM_THREADS=1 python tests/benchmarks/losses.py [threads]

Memory that is freed is kept, as in every run of this package; without that the cross-entropy takes up to three times as
long, and the ratios are smaller. ``fresh`` as a second word shows those. About half a minute.
"""

from __future__ import annotations

import os
import sys

# On a machine that does other things too, threads that wait for each other would count their waiting as work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from _table import Figure, cpu_seconds, measure
from torch import Tensor, nn

from lightning_vision.allocator import keep_freed_memory
from lightning_vision.losses.base import Loss
from lightning_vision.losses.dice import DiceLoss
from lightning_vision.losses.jaccard import JaccardLoss
from lightning_vision.losses.lovasz import LovaszSoftmaxLoss
from lightning_vision.losses.tversky import TverskyLoss

BATCH, CLASSES, SIZE, VOID = 8, 21, 256, 255


def drawn(right: float, void: float = 0.0) -> tuple[Tensor, Tensor]:
    """Logits with a gradient to come, the truth's raised by ``right``, and class ids."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, CLASSES, (BATCH, SIZE, SIZE), generator=generator)
    logits = torch.randn(BATCH, CLASSES, SIZE, SIZE, generator=generator)
    logits.scatter_add_(1, target[:, None], torch.full((BATCH, 1, SIZE, SIZE), float(right)))
    target[torch.rand(target.shape, generator=generator) < void] = VOID
    return logits.requires_grad_(), target


def step(loss: nn.Module, logits: Tensor, target: Tensor) -> None:
    logits.grad = None
    loss(logits, target).backward()


def figure(name: str, loss: Loss, data: tuple[Tensor, Tensor], target: float) -> Figure:
    limit = nn.CrossEntropyLoss(ignore_index=VOID)
    return Figure(
        f"{name} / cross-entropy",
        lambda: cpu_seconds(lambda: step(loss, *data)),
        lambda: cpu_seconds(lambda: step(limit, *data)),
        target,
    )


def main(threads: int, fresh: bool) -> bool:
    torch.set_num_threads(threads)
    if not fresh:
        keep_freed_memory()
    random, half, void = drawn(0), drawn(3), drawn(3, 0.1)
    dice, lovasz = DiceLoss(CLASSES, None, VOID), LovaszSoftmaxLoss(CLASSES, None, VOID)
    return measure(
        [
            figure("dice, random", dice, random, 2),
            figure("dice, void", dice, void, 2),
            figure("dice, squares, void", DiceLoss(CLASSES, None, VOID, square_denominator=True), void, 2),
            figure("jaccard, half", JaccardLoss(CLASSES, None, VOID), half, 2),
            figure("tversky, focal, half", TverskyLoss(CLASSES, None, VOID, gamma=0.75), half, 2),
            figure("lovasz_softmax, random", lovasz, random, 4),
            figure("lovasz_softmax, half", lovasz, half, 4),
            figure("lovasz_softmax, void", lovasz, void, 4),
        ],
        repeats=9,
    )


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    sys.exit(not main(numbers[0] if numbers else 1, "fresh" in sys.argv))
