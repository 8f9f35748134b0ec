"""Random solarisation."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from lightning_vision.augmentation.color import solarize
from lightning_vision.augmentation.color_change import ColorChange
from lightning_vision.types import Between


class RandomSolarize(ColorChange):
    """Invert the light values of each image, with probability ``p``; alpha and targets stay.

    The same as torchvision's.

    Args:
        threshold: Values from here on are inverted: 0 inverts all, 256 none.
        p: Probability, drawn for every image by itself.
    """

    def __init__(
        self, threshold: Annotated[int, Between(0, 256)] = 128, p: Annotated[float, Between(0, 1)] = 0.5
    ) -> None:
        super().__init__(p)
        self.threshold = threshold

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """The same for all."""
        return torch.full((count,), float(self.threshold))

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Invert from the threshold on."""
        return solarize(colours, amount)
