"""Random brightness."""

from __future__ import annotations

from torch import Tensor

from lightning_vision.augmentation.color import adjust_brightness
from lightning_vision.augmentation.color_change import FactorChange


class RandomBrightness(FactorChange):
    """Multiply the pixels of each image by a factor, with probability ``p``; alpha and targets stay.

    Each value is rounded once and cut to its range, by a table of the 256 values.

    Args:
        min: Smallest factor, below 1 is darker.
        max: Largest factor; they are drawn evenly, for every image by itself.
        p: Probability, drawn for every image by itself.

    Raises:
        ConfigError: Not 0 < min < max.
    """

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Multiply."""
        return adjust_brightness(colours, amount)
