"""Random posters."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from lightning_vision.augmentation.color import posterize
from lightning_vision.augmentation.color_change import ColorChange
from lightning_vision.types import Between


class RandomPosterize(ColorChange):
    """Keep only the highest bits of each value, with probability ``p``; alpha and targets stay.

    The same as torchvision's.

    Args:
        bits: Bits that are kept, of 8.
        p: Probability, drawn for every image by itself.
    """

    def __init__(self, bits: Annotated[int, Between(1, 8)] = 4, p: Annotated[float, Between(0, 1)] = 0.5) -> None:
        super().__init__(p)
        self.bits = bits

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """The same for all."""
        return torch.full((count,), self.bits)

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Keep the highest bits."""
        return posterize(colours, amount)
