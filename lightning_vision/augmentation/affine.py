"""Turning, moving, scaling and shearing at once."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from lightning_vision.augmentation.ranges import Range, ordered, uniform
from lightning_vision.augmentation.warp import warp
from lightning_vision.types import Between

Share = Annotated[float, Between(0, 1)]


class RandomAffine(nn.Module):
    """Turn, move, scale and shear each image at random, in one resampling; a class map moves with its image.

    Parameters and map are those of torchvision's ``RandomAffine``, but that an image is not moved by whole pixels only.
    All is drawn evenly, for every image by itself. Images are interpolated bilinearly, class maps take the nearest
    pixel; what comes in at the borders is ``fill``, and is ignored in class maps.

    Args:
        degree: Largest angle, in degrees, either way.
        translate: Largest way, as a share of the width and of the height, either way.
        scale: Smallest and largest factor of the size.
        shear: Largest angle along x, in degrees, either way.
        p: Probability that an image is changed, drawn for every image of the batch by itself.
        fill: Value of the borders, in all channels.
        ignored: Value of the borders of class maps; None: there are none.

    Raises:
        ConfigError: The range of ``scale`` begins behind its end.
    """

    injected: ClassVar[tuple[str, ...]] = ("ignored",)

    def __init__(
        self,
        degree: Annotated[float, Between(0, 180)] = 10.0,
        translate: tuple[Share, Share] = (0.1, 0.1),
        scale: Range = (0.9, 1.1),
        shear: Annotated[float, Between(0, 90, high_open=True)] = 5.0,
        p: Annotated[float, Between(0, 1)] = 0.5,
        fill: Annotated[int, Between(0, 255)] = 0,
        ignored: int | None = None,
    ) -> None:
        super().__init__()
        self.degree = degree
        self.translate = translate
        self.scale = ordered(scale, "random_affine.scale")
        self.shear = shear
        self.p = p
        self.fill = fill
        self.ignored = ignored

    def forward(self, image: Tensor, target: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Change.

        Args:
            image: uint8 ``(B, C, H, W)``.
            target: Class map ``(B, H, W)``, class ids ``(B,)`` (left as they are) or None.
            generator: Source of the draws, on the CPU.
        """
        count, (height, width) = len(image), image.shape[-2:]
        chosen = torch.rand(count, generator=generator) < self.p
        most = (self.translate[0] * width, self.translate[1] * height)
        angle, shear = (uniform((-m, m), (count,), generator) for m in map(math.radians, (self.degree, self.shear)))
        right, down = (uniform((-m, m), (count,), generator) for m in most)
        matrix = from_new_to_old(angle, right, down, shear, uniform(self.scale, (count,), generator))
        return warp(image, target, matrix, chosen, self.fill, self.ignored)


def from_new_to_old(angle: Tensor, right: Tensor, down: Tensor, shear: Tensor, scale: Tensor) -> Tensor:
    """Matrices ``(B, 2, 3)`` for ``warp``: the inverse of shear, scale and turn about the centre, then the way.

    Args:
        angle: ``(B,)`` radians.
        right: ``(B,)`` pixels.
        down: ``(B,)`` pixels.
        shear: ``(B,)`` radians.
        scale: ``(B,)``, above 0.
    """
    cos, sin, slope = angle.cos(), angle.sin(), shear.tan()
    turned = torch.stack((cos - slope * sin, slope * cos + sin, -sin, cos), 1).view(-1, 2, 2) / scale[:, None, None]
    return torch.cat((turned, -turned @ torch.stack((right, down), 1)[..., None]), 2)
