"""Turning."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from lightning_vision.augmentation.warp import rotation, warp
from lightning_vision.types import Between


class RandomRotate(nn.Module):
    """Turn each image about its centre by a random angle; a class map turns with its image.

    The angle is drawn evenly from ``[-degree, degree]`` for every image by itself. Images are interpolated bilinearly,
    class maps take the nearest pixel; what comes in at the corners is ``fill``, and is ignored in class maps.

    Args:
        degree: Largest angle, in degrees, either way.
        p: Probability of a turn, drawn for every image of the batch by itself.
        fill: Value of the corners, in all channels.
        ignored: Value of the corners of class maps; None: there are none.
    """

    injected: ClassVar[tuple[str, ...]] = ("ignored",)

    def __init__(
        self,
        degree: Annotated[float, Between(0, 180, low_open=True)] = 15.0,
        p: Annotated[float, Between(0, 1)] = 0.5,
        fill: Annotated[int, Between(0, 255)] = 0,
        ignored: int | None = None,
    ) -> None:
        super().__init__()
        self.degree = degree
        self.p = p
        self.fill = fill
        self.ignored = ignored

    def forward(self, image: Tensor, target: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Turn.

        Args:
            image: uint8 ``(B, C, H, W)``.
            target: Class map ``(B, H, W)``, class ids ``(B,)`` (left as they are) or None.
            generator: Source of the draws, on the CPU.
        """
        count = len(image)
        chosen = torch.rand(count, generator=generator) < self.p
        angle = (2 * torch.rand(count, generator=generator) - 1) * math.radians(self.degree)
        return warp(image, target, rotation(angle), chosen, self.fill, self.ignored)
