"""Random negatives."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_vision.augmentation.color import invert
from lightning_vision.augmentation.color_change import ColorChange
from lightning_vision.types import Between


class RandomInvert(ColorChange):
    """Make dark light and light dark, in each image with probability ``p``; alpha and targets stay.

    Args:
        p: Probability, drawn for every image by itself.
    """

    def __init__(self, p: Annotated[float, Between(0, 1)] = 0.5) -> None:
        super().__init__(p)

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Invert."""
        return invert(colours)
