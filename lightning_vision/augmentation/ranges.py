"""Ranges that transforms draw from, and what is drawn from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor

from lightning_vision.errors import ConfigError
from lightning_vision.types import Between, Ordered

Factor = Annotated[float, Between(0, low_open=True)]
Range = Annotated[tuple[Factor, Factor], Ordered()]

ATTEMPTS = 10


def ordered(given: Sequence[float], setting: str, highest: float = math.inf) -> tuple[float, float]:
    """Return a range of numbers above 0.

    Args:
        given: Its two ends.
        setting: What it is called below ``augmentation``, such as ``random_affine.scale``.
        highest: Its end may not be above.

    Raises:
        ConfigError: It is none.
    """
    low, high = given if len(given) == 2 else (math.nan, math.nan)
    if not 0 < low <= high <= highest:
        at_most = "" if math.isinf(highest) else f" and at most {highest:g}"
        raise ConfigError(
            f"augmentation.{setting} is no range.",
            given=list(given),
            expected=f"two numbers above 0{at_most}, the smaller first",
            override=f"augmentation.{setting}=[0.5,{min(highest, 2.0)}]",
        )
    return float(low), float(high)


def uniform(bounds: tuple[float, float], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw evenly between two bounds: float32, on the CPU."""
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(shape, generator=generator)


def first_that_fits(
    area: tuple[float, float],
    aspect: tuple[float, float],
    pixels: int,
    count: int,
    fits: Callable[[Tensor], Tensor],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw rectangles, each up to ten times until it fits, as torchvision's crop and timm's erasing do.

    Args:
        area: Smallest and largest area as a share of the image, drawn evenly.
        aspect: Smallest and largest first side over the second one; its logarithm is drawn evenly.
        pixels: Of the image.
        count: Rectangles.
        fits: Of sides in pixels ``(count, ATTEMPTS, 2)``, which are short enough and long enough, bool.
        generator: Source of the draws, on the CPU.

    Returns:
        Both sides, whole pixels, float32 ``(count, 2)``; and whether they fit, bool ``(count, 1)``.
    """
    areas = uniform(area, (count, ATTEMPTS), generator) * pixels
    aspects = uniform((math.log(aspect[0]), math.log(aspect[1])), (count, ATTEMPTS), generator).exp()
    tried = torch.stack(((areas * aspects).sqrt().round(), (areas / aspects).sqrt().round()), -1)
    fit = fits(tried).all(-1)
    return tried[torch.arange(count), fit.int().argmax(1)], fit.any(1, keepdim=True)
