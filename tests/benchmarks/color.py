"""Random changes of colour and the automatic policies beside torchvision's: CPU time of a batch ``(16, 3, 224, 224)``.

A change of colour is done to all images, each by its own amount; torchvision's function does it to the bare batch, by
one amount for all. A policy is beside torchvision's transform called image by image, and timm's on Pillow images.

    OMP_NUM_THREADS=1 python tests/benchmarks/color.py

Half a minute.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

# On a machine that does other things too, threads that wait for each other would count their waiting as work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from _table import Figure, cpu_seconds, measure
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor, nn
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode, v2
from torchvision.transforms.v2 import functional as vision

from lightning_vision.allocator import keep_freed_memory
from lightning_vision.augmentation.auto_augment import AutoAugment
from lightning_vision.augmentation.autocontrast import RandomAutocontrast
from lightning_vision.augmentation.blur import RandomBlur
from lightning_vision.augmentation.brightness import RandomBrightness
from lightning_vision.augmentation.contrast import RandomContrast
from lightning_vision.augmentation.equalize import RandomEqualize
from lightning_vision.augmentation.gamma import RandomGamma
from lightning_vision.augmentation.hue import RandomHue
from lightning_vision.augmentation.rand_augment import RandAugment
from lightning_vision.augmentation.saturation import RandomSaturation
from lightning_vision.augmentation.sharpness import RandomSharpness
from lightning_vision.augmentation.solarize import RandomSolarize
from lightning_vision.augmentation.trivial_augment import TrivialAugment

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (16, 3, 224, 224), dtype=torch.uint8, generator=GENERATOR)
PILLOW = [vision.to_pil_image(image) for image in IMAGES]


def figure(name: str, ours: nn.Module, theirs: Callable[[], object], target: float) -> Figure:
    return Figure(name, lambda: cpu_seconds(lambda: ours(IMAGES, None, GENERATOR)), lambda: cpu_seconds(theirs), target)


def each(transform: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
    return lambda: torch.stack([transform(image) for image in IMAGES])


def main() -> bool:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    straight = InterpolationMode.BILINEAR
    cifar = v2.AutoAugment(AutoAugmentPolicy.CIFAR10, straight)
    # Without mstd0.5: at magnitude 10 timm asks Pillow to posterize to no bits, which it refuses.
    timm = rand_augment_transform("rand-m9-inc1")
    return measure(
        [
            figure("brightness", RandomBrightness(p=1.0), lambda: vision.adjust_brightness(IMAGES, 1.3), 1.5),
            figure("brightness, p=0.5", RandomBrightness(), lambda: vision.adjust_brightness(IMAGES, 1.3), 1.5),
            figure("contrast", RandomContrast(p=1.0), lambda: vision.adjust_contrast(IMAGES, 1.3), 1.5),
            figure("saturation", RandomSaturation(p=1.0), lambda: vision.adjust_saturation(IMAGES, 1.3), 1.5),
            figure("hue", RandomHue(p=1.0), lambda: vision.adjust_hue(IMAGES, 0.1), 1.5),
            figure("gamma", RandomGamma(p=1.0), lambda: vision.adjust_gamma(IMAGES, 1.3), 1.5),
            figure("sharpness", RandomSharpness(p=1.0), lambda: vision.adjust_sharpness(IMAGES, 1.3), 1.5),
            figure("blur", RandomBlur(p=1.0), lambda: vision.gaussian_blur(IMAGES, [3, 3]), 1.5),
            figure("blur 23", RandomBlur(23, p=1.0), lambda: vision.gaussian_blur(IMAGES, [23, 23]), 1.5),
            figure("solarize", RandomSolarize(p=1.0), lambda: vision.solarize(IMAGES, 128), 1.5),
            figure("equalize", RandomEqualize(p=1.0), lambda: vision.equalize(IMAGES), 1.5),
            figure("autocontrast", RandomAutocontrast(p=1.0), lambda: vision.autocontrast(IMAGES), 1.5),
            figure("trivial_augment", TrivialAugment(), each(v2.TrivialAugmentWide(interpolation=straight)), 1),
            figure("auto_augment", AutoAugment(), each(v2.AutoAugment(interpolation=straight)), 1),
            figure("auto_augment, cifar10", AutoAugment("cifar10"), each(cifar), 1),
            figure("rand_augment, p=1", RandAugment(p=1.0), each(v2.RandAugment(interpolation=straight)), 1),
            figure("rand_augment / timm", RandAugment(), lambda: [timm(image) for image in PILLOW], 1),
        ],
        repeats=15,
    )


if __name__ == "__main__":
    sys.exit(not main())
