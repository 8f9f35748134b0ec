"""Random equalisation."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_vision.augmentation.color import equalize
from lightning_vision.augmentation.color_change import ColorChange
from lightning_vision.types import Between


class RandomEqualize(ColorChange):
    """Make the values of each channel about as frequent, with probability ``p``; alpha and targets stay.

    By Pillow's rule, as torchvision does. It takes the whole image; torchvision has none by parts (CLAHE).

    Args:
        p: Probability, drawn for every image by itself.
    """

    def __init__(self, p: Annotated[float, Between(0, 1)] = 0.5) -> None:
        super().__init__(p)

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Equalise."""
        return equalize(colours)
