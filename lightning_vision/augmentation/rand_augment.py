"""RandAugment."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from lightning_vision.augmentation.policy import Amount, Policy, nothing
from lightning_vision.types import Between


class RandAugment(Policy):
    """Change each image by a few operations of one strength (Cubuk et al., 2020); a class map moves with its image.

    Operations and ranges are those of timm's ``rand-m9-mstd0.5-inc1`` and mmpretrain's ``timm_increasing``. Other than
    in the paper, an operation that was drawn happens with probability ``p``, and the magnitude varies. Every image
    draws for itself, each operation anew. Deviations from timm: images are always interpolated bilinearly (there: or
    bicubically, at random), ``fill`` is 0 (there: the mean of ImageNet), values are rounded once.

    Args:
        num_ops: Operations drawn for each image, one after the other.
        magnitude: Mean strength, 10 is the most.
        magnitude_std: Standard deviation of the strength, which is cut to 0 and 10.
        p: Probability that an operation that was drawn happens.
        increasing: Posterize, solarize, color, contrast, brightness and sharpness grow with the strength, as the others
            do; without it they follow the paper's code, where most do not.
        fill: Value outside the image, in all channels.
        ignored: Value of class maps outside the image; None: there are none.
        num_inputs: Images of a sample, along the channels.
    """

    def __init__(
        self,
        num_ops: Annotated[int, Between(1)] = 2,
        magnitude: Annotated[float, Between(0, 10)] = 9.0,
        magnitude_std: Annotated[float, Between(0)] = 0.5,
        p: Annotated[float, Between(0, 1)] = 0.5,
        increasing: bool = True,
        fill: Annotated[int, Between(0, 255)] = 0,
        ignored: int | None = None,
        num_inputs: int = 1,
    ) -> None:
        super().__init__(operations(increasing), fill, ignored, num_inputs)
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.magnitude_std = magnitude_std
        self.p = p

    def draw(self, count: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """Draw operations, some of which do not happen, and their strengths."""
        drawn = []
        for _ in range(self.num_ops):
            operation = torch.randint(len(self.space), (count,), generator=generator)
            happens = torch.rand(count, generator=generator) < self.p
            spread = self.magnitude_std * torch.randn(count, generator=generator, dtype=torch.float64)
            drawn.append((operation.where(happens, -1), (self.magnitude + spread).clamp_(0, 10) / 10))
        return drawn


def operations(increasing: bool) -> dict[str, Amount]:
    """The operations of timm, with what they make of a strength from 0 to 1."""

    def factor(level: Tensor, sign: Tensor, size: tuple[int, int]) -> Tensor:
        return (1 + 0.9 * level * sign).clamp_(min=0.1) if increasing else 0.1 + 1.8 * level

    def bits(level: Tensor, sign: Tensor, size: tuple[int, int]) -> Tensor:
        return 4 - (4 * level).floor() if increasing else (4 * level).floor()

    def threshold(level: Tensor, sign: Tensor, size: tuple[int, int]) -> Tensor:
        return 256 - (256 * level).floor() if increasing else (256 * level).floor()

    return {
        "autocontrast": nothing,
        "equalize": nothing,
        "invert": nothing,
        "rotate": lambda level, sign, size: 30 * level * sign,
        "posterize": bits,
        "solarize": threshold,
        "solarize_add": lambda level, sign, size: (110 * level).floor(),
        "color": factor,
        "contrast": factor,
        "brightness": factor,
        "sharpness": factor,
        "shear_x": lambda level, sign, size: 0.3 * level * sign,
        "shear_y": lambda level, sign, size: 0.3 * level * sign,
        "translate_x": lambda level, sign, size: 0.45 * size[1] * level * sign,
        "translate_y": lambda level, sign, size: 0.45 * size[0] * level * sign,
    }
