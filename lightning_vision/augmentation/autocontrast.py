"""Random stretching of contrast."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_vision.augmentation.color import autocontrast
from lightning_vision.augmentation.color_change import ColorChange
from lightning_vision.types import Between


class RandomAutocontrast(ColorChange):
    """Stretch the values of each channel to their whole range, with probability ``p``; alpha and targets stay.

    A channel of one value stays.

    Args:
        p: Probability, drawn for every image by itself.
    """

    def __init__(self, p: Annotated[float, Between(0, 1)] = 0.5) -> None:
        super().__init__(p)

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Stretch."""
        return autocontrast(colours)
