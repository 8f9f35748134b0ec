"""Ranges that transforms draw from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_vision.errors import ConfigError


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
