"""Zooming in and out."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from lightning_vision.augmentation.ranges import Range, ordered, uniform
from lightning_vision.augmentation.warp import warp
from lightning_vision.types import Between


class ScaleJitter(nn.Module):
    """Make each image larger or smaller about a random point of it; a class map changes with its image.

    A larger image is cut to its old size, a smaller one lies anywhere in it: the large scale jitter of instance
    segmentation (Ghiasi et al., CVPR 2021), which puts smaller images into the corner. Images are interpolated
    bilinearly, without smoothing those that shrink; class maps take the nearest pixel. What comes in at the borders is
    ``fill``, and is ignored in class maps.

    Args:
        scale: Smallest and largest factor of the size, drawn evenly.
        p: Probability that an image is scaled, drawn for every image of the batch by itself.
        fill: Value of the borders, in all channels.
        ignored: Value of the borders of class maps; None: there are none.

    Raises:
        ConfigError: The range of ``scale`` begins behind its end.
    """

    injected: ClassVar[tuple[str, ...]] = ("ignored",)

    def __init__(
        self,
        scale: Range = (0.5, 2.0),
        p: Annotated[float, Between(0, 1)] = 1.0,
        fill: Annotated[int, Between(0, 255)] = 0,
        ignored: int | None = None,
    ) -> None:
        super().__init__()
        self.scale = ordered(scale, "scale_jitter.scale")
        self.p = p
        self.fill = fill
        self.ignored = ignored

    def forward(self, image: Tensor, target: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Zoom.

        Args:
            image: uint8 ``(B, C, H, W)``.
            target: Class map ``(B, H, W)``, class ids ``(B,)`` (left as they are) or None.
            generator: Source of the draws, on the CPU.
        """
        count, (height, width) = len(image), image.shape[-2:]
        chosen = torch.rand(count, generator=generator) < self.p
        inverse = 1 / uniform(self.scale, (count,), generator)
        point = uniform((-0.5, 0.5), (count, 2), generator) * torch.tensor([float(width), float(height)])
        # The point stays where it is.
        shift, none = point * (1 - inverse)[:, None], torch.zeros(count)
        matrix = torch.stack((inverse, none, shift[:, 0], none, inverse, shift[:, 1]), 1).view(-1, 2, 3)
        return warp(image, target, matrix, chosen, self.fill, self.ignored)
