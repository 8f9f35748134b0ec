"""Random hue."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from lightning_vision.augmentation.color import adjust_hue
from lightning_vision.augmentation.color_change import ColorChange
from lightning_vision.augmentation.ranges import uniform
from lightning_vision.types import Between


class RandomHue(ColorChange):
    """Turn the hue of each image, with probability ``p``; alpha and targets stay.

    The turn is drawn evenly from ``[-max, max]``. Grey images have no hue: they stay.

    Args:
        max: Largest turn, 0.5 = half the circle.
        p: Probability, drawn for every image by itself.
    """

    def __init__(self, max: Annotated[float, Between(0, 0.5)] = 0.1, p: Annotated[float, Between(0, 1)] = 0.5) -> None:
        super().__init__(p)
        self.max = max

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw turns."""
        return uniform((-self.max, self.max), (count,), generator)

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Turn."""
        return adjust_hue(colours, amount)
