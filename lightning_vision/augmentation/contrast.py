"""Random contrast."""

from __future__ import annotations

from torch import Tensor

from lightning_vision.augmentation.color import adjust_contrast
from lightning_vision.augmentation.color_change import FactorChange


class RandomContrast(FactorChange):
    """Multiply distances to each image's mean luma by a factor, with probability ``p``; alpha and targets stay.

    Each value is rounded once and cut to its range, by a table of the 256 values.

    Args:
        min: Smallest factor, below 1 is paler.
        max: Largest factor; they are drawn evenly, for every image by itself.
        p: Probability, drawn for every image by itself.

    Raises:
        ConfigError: Not 0 < min < max.
    """

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Multiply the distance to the mean."""
        return adjust_contrast(colours, amount)
