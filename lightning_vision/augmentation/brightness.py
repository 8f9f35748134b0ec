"""Random brightness."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from lightning_vision.augmentation.color import adjust_brightness
from lightning_vision.augmentation.color_change import ColorChange, check_range, uniform
from lightning_vision.types import Below, Between


class RandomBrightness(ColorChange):
    """Multiply the pixels of each image by a factor, with probability ``p``; alpha and targets stay.

    The factor is drawn evenly from ``[min, max]`` for every image by itself. Each value is rounded once and cut to its
    range, by a table of the 256 values.

    Args:
        min: Smallest factor, below 1 is darker.
        max: Largest factor.
        p: Probability, drawn for every image by itself.

    Raises:
        ConfigError: The range is empty or out of bounds.
    """

    def __init__(
        self,
        min: Annotated[float, Between(0, low_open=True), Below("max")] = 0.5,
        max: Annotated[float, Between(0, low_open=True)] = 2.0,
        p: Annotated[float, Between(0, 1)] = 0.5,
    ) -> None:
        super().__init__(p)
        check_range("random_brightness", min, max, (0.5, 2.0))
        self.min, self.max = min, max

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw factors."""
        return uniform(self.min, self.max, count, generator)

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Multiply."""
        return adjust_brightness(colours, amount)
