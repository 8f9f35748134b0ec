"""Light augmentation, drawn for every image, beside torchvision's functions called once on the whole batch.

    OMP_NUM_THREADS=1 python tests/benchmarks/augmentation.py [threads]

Ours: ``random_horizontal_flip``, ``random_rotate`` by up to 10 degrees and ``random_brightness``, each on half of the
images. The limit: ``horizontal_flip``, ``rotate`` (bilinear; class maps nearest, their corners filled) and
``adjust_brightness`` of ``torchvision.transforms.v2.functional``, as one writes them by hand: the same change for all
images. uint8 ``(16, 3, 224, 224)``, with and without class maps. One by one they have no target: torchvision flips a
batch at the speed of a copy. The last row is a share, of a training step of MobileNetV2 on that batch.

Memory that is freed is kept, as in every run of this package. About a minute.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial

import torch
from _table import Figure, cpu_seconds, measure
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from lightning_vision import build
from lightning_vision.allocator import keep_freed_memory
from lightning_vision.augmentation.batches import augmented
from lightning_vision.augmentation.brightness import RandomBrightness
from lightning_vision.augmentation.flip import RandomHorizontalFlip
from lightning_vision.augmentation.rotate import RandomRotate
from lightning_vision.types import Batch

COUNT, SIZE, DEGREE, VOID = 16, 224, 10, 255
# Batches in one measurement: how many images are chosen differs from batch to batch.
BATCHES = 4


def drawn(masks: bool) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (COUNT, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    batch: Batch = {"image": image, "index": torch.arange(COUNT), "target": torch.arange(COUNT) % 3}
    if masks:
        batch["target"] = torch.randint(0, 12, (COUNT, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return batch


FLIP, ROTATE, BRIGHTNESS = RandomHorizontalFlip(0.5), RandomRotate(DEGREE, 0.5, ignored=VOID), RandomBrightness(p=0.5)
PARTS: dict[str, tuple[list[torch.nn.Module], list[Callable[[Tensor], Tensor]], list[Callable[[Tensor], Tensor]]]] = {
    "flip": ([FLIP], [vision.horizontal_flip], [vision.horizontal_flip]),
    "rotate": (
        [ROTATE],
        [partial(vision.rotate, angle=DEGREE, interpolation=InterpolationMode.BILINEAR)],
        [partial(vision.rotate, angle=DEGREE, interpolation=InterpolationMode.NEAREST, fill=[float(VOID)])],
    ),
    "brightness": ([BRIGHTNESS], [partial(vision.adjust_brightness, brightness_factor=1.3)], []),
}
GENERATOR = torch.Generator().manual_seed(0)


def ours(names: list[str], batch: Batch) -> float:
    transforms = [transform for name in names for transform in PARTS[name][0]]
    return cpu_seconds(lambda: [augmented(batch, transforms, GENERATOR) for _ in range(BATCHES)])


def bare(names: list[str], batch: Batch) -> float:
    def by_hand() -> None:
        image, mask = batch["image"], batch["target"][:, None]
        for name in names:
            for call in PARTS[name][1]:
                image = call(image)
            for call in PARTS[name][2] if mask.ndim == 4 else []:
                mask = call(mask)

    return cpu_seconds(lambda: [by_hand() for _ in range(BATCHES)])


def figure(names: list[str], batch: Batch, masks: str = "", target: float = 1.5) -> Figure:
    return Figure(f"{', '.join(names)}{masks}", partial(ours, names, batch), partial(bare, names, batch), target)


def training_steps() -> Callable[[], float]:
    """CPU seconds of as many training steps, without augmentation."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        words = ["data=shapes", "encoder=mobilenetv2", "encoder.use_pretrained=false", "decoder=classifier"]
        module, _ = build([*words, f"output_dir={folder}"], image_size=SIZE)
    batch = drawn(masks=False)
    optimizer = torch.optim.AdamW(module.parameters())

    def step() -> None:
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()

    module.train()
    return lambda: cpu_seconds(lambda: [step() for _ in range(BATCHES)])


def main(threads: int) -> bool:
    torch.set_num_threads(threads)
    keep_freed_memory()
    warnings.filterwarnings("ignore")
    labels, masks, every = drawn(masks=False), drawn(masks=True), list(PARTS)
    return measure(
        [
            *(figure([name], labels, target=math.inf) for name in every),
            figure(every, labels),
            figure(every, masks, ", masks"),
            Figure("share of a step of MobileNetV2", partial(ours, every, labels), training_steps(), math.inf),
        ],
        repeats=7,
    )


if __name__ == "__main__":
    sys.exit(not main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
