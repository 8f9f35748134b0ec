"""Random saturation."""

from __future__ import annotations

from torch import Tensor

from lightning_vision.augmentation.color import adjust_saturation
from lightning_vision.augmentation.color_change import FactorChange


class RandomSaturation(FactorChange):
    """Multiply distances to each pixel's luma by a factor, with probability ``p``; alpha and targets stay.

    Grey images have no saturation: they stay.

    Args:
        min: Smallest factor, below 1 is greyer.
        max: Largest factor; they are drawn evenly, for every image by itself.
        p: Probability, drawn for every image by itself.

    Raises:
        ConfigError: Not 0 < min < max.
    """

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Multiply the distance to the luma."""
        return adjust_saturation(colours, amount)
