"""Random sharpness."""

from __future__ import annotations

from torch import Tensor

from lightning_vision.augmentation.color import adjust_sharpness
from lightning_vision.augmentation.color_change import FactorChange


class RandomSharpness(FactorChange):
    """Multiply distances to the smoothed image by a factor, with probability ``p``; alpha and targets stay.

    Smoothed is the mean of 3 x 3 pixels in which the middle counts five times, as in Pillow and torchvision. The
    outermost pixels stay.

    Args:
        min: Smallest factor, below 1 is smoother.
        max: Largest factor; they are drawn evenly, for every image by itself.
        p: Probability, drawn for every image by itself.

    Raises:
        ConfigError: Not 0 < min < max.
    """

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Multiply the distance to the smoothed image."""
        return adjust_sharpness(colours, amount)
