"""TrivialAugment."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from lightning_vision.augmentation.policy import Policy, nothing, torchvision_space
from lightning_vision.types import Between


class TrivialAugment(Policy):
    """Change each image by one operation of any strength; a class map moves with its image.

    The policy is that of Müller & Hutter (ICCV 2021). Operations and ranges are those of torchvision's
    ``TrivialAugmentWide``; images are interpolated bilinearly (there: the nearest pixel). Every image draws for itself.

    Args:
        num_magnitude_bins: Strengths that there are.
        p: Probability of a change, drawn for every image by itself.
        fill: Value outside the image, in all channels.
        ignored: Value of class maps outside the image; None: there are none.
        num_inputs: Images of a sample, along the channels.
    """

    def __init__(
        self,
        num_magnitude_bins: Annotated[int, Between(2)] = 31,
        p: Annotated[float, Between(0, 1)] = 1.0,
        fill: Annotated[int, Between(0, 255)] = 0,
        ignored: int | None = None,
        num_inputs: int = 1,
    ) -> None:
        space = torchvision_space(factor=0.99, shear=0.99, degrees=135.0, bits=6, pixels=lambda side: 32.0)
        super().__init__({"identity": nothing, **space}, fill, ignored, num_inputs)
        self.num_magnitude_bins = num_magnitude_bins
        self.p = p

    def draw(self, count: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """Draw one operation each, and one of the strengths."""
        chosen = torch.rand(count, generator=generator) < self.p
        operation = torch.randint(len(self.space), (count,), generator=generator)
        level = torch.randint(self.num_magnitude_bins, (count,), generator=generator)
        return [(operation.where(chosen, -1), level.double() / (self.num_magnitude_bins - 1))]
