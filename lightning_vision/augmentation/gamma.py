"""Random gamma."""

from __future__ import annotations

from torch import Tensor

from lightning_vision.augmentation.color import adjust_gamma
from lightning_vision.augmentation.color_change import FactorChange


class RandomGamma(FactorChange):
    """Raise the pixels of each image, in [0, 1], to a power, with probability ``p``; alpha and targets stay.

    Black and white stay; between them shadows become lighter or darker. Each value is rounded once.

    Args:
        min: Smallest power, below 1 is lighter.
        max: Largest power; they are drawn evenly, for every image by itself.
        p: Probability, drawn for every image by itself.

    Raises:
        ConfigError: Not 0 < min < max.
    """

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Raise to the power."""
        return adjust_gamma(colours, amount)
