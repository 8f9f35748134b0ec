"""Random blur."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from lightning_vision.augmentation.color import gaussian_blur
from lightning_vision.augmentation.color_change import ColorChange
from lightning_vision.augmentation.ranges import Factor, Range, uniform
from lightning_vision.errors import ConfigError
from lightning_vision.types import Between, Odd


class RandomBlur(ColorChange):
    """Blur each image by a Gaussian, with probability ``p``; alpha and targets stay.

    Edges are mirrored, as in torchvision's ``gaussian_blur``; an image may be smaller than the square.

    Args:
        kernel_size: Side of the square in pixels that is averaged over, odd; 1 changes nothing.
        sigma: Standard deviation in pixels, or a range that each image's is drawn from evenly (SimCLR: 0.1 to 2, with a
            square of a tenth of the image); null = 0.15 * kernel_size + 0.35, as in torchvision.
        p: Probability, drawn for every image by itself.

    Raises:
        ConfigError: A value is out of bounds.
    """

    def __init__(
        self,
        kernel_size: Annotated[int, Between(1), Odd()] = 3,
        sigma: Factor | Range | None = None,
        p: Annotated[float, Between(0, 1)] = 0.5,
    ) -> None:
        super().__init__(p)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(
                "The square that random_blur averages over has a pixel in its middle.",
                given=f"kernel_size={kernel_size}",
                expected="an odd integer of at least 1",
                override=f"augmentation.random_blur.kernel_size={max(1, kernel_size + 1)}",
            )
        if sigma is None:
            sigma = 0.15 * kernel_size + 0.35
        spread = (sigma, sigma) if isinstance(sigma, int | float) else tuple(sigma)
        if len(spread) != 2 or not 0 < spread[0] <= spread[1] < math.inf:
            raise ConfigError(
                "The sigma of random_blur is a number of pixels or a range of it.",
                given=sigma,
                expected="a number greater than 0, or two, the smaller first",
                override="augmentation.random_blur.sigma=[0.1,2.0]",
            )
        self.kernel_size = kernel_size
        self.sigma = (float(spread[0]), float(spread[1]))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw standard deviations."""
        return uniform(self.sigma, (count,), generator)

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Blur."""
        return gaussian_blur(colours, self.kernel_size, amount)
