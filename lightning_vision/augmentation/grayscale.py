"""Random grey images."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from lightning_vision.augmentation.color import grayscale
from lightning_vision.augmentation.color_change import ColorChange
from lightning_vision.types import Between


class RandomGrayscale(ColorChange):
    """Take the colours of each image away, with probability ``p``: all channels become the luma.

    Images that are grey already stay, and so do alpha and targets.

    Args:
        p: Probability, drawn for every image by itself.
    """

    def __init__(self, p: Annotated[float, Between(0, 1)] = 0.5) -> None:
        super().__init__(p)

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Take the luma."""
        return grayscale(colours)
