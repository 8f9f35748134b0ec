"""Random changes of colour."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from lightning_vision.augmentation.color import luma, saturate, turn_hue
from lightning_vision.augmentation.color_change import color_channels
from lightning_vision.augmentation.rows import put, taken
from lightning_vision.processor import IN_CACHE
from lightning_vision.types import Between


class ColorJitter(nn.Module):
    """Change brightness, contrast, saturation and hue of each image at random, or take its colours away.

    With probability ``p`` all four are changed, in a random order, each by a factor drawn evenly from
    ``[max(0, 1 - value), 1 + value]`` (hue: a turn from ``-value`` to ``value`` of the circle); pixels are cut to
    their range after each. Then, with probability ``grayscale``, all channels become the luma. The changes are those of
    torchvision's ``ColorJitter`` and ``RandomGrayscale``, rounded once, at the end. All is drawn for every image by
    itself. Grey images have brightness and contrast alone; alpha and targets stay.

    The defaults are those of SimCLR with strength 0.5 (Chen et al., 2020), as MoCo v2 takes them.

    Args:
        brightness: Largest change of the factor that pixels are multiplied by.
        contrast: Largest change of the factor of the distance to the image's mean luma.
        saturation: Largest change of the factor of the distance to each pixel's luma.
        hue: Largest turn of the hue, 0.5 = half the circle.
        grayscale: Probability that an image loses its colours.
        p: Probability that the four are changed.
    """

    injected: ClassVar[tuple[str, ...]] = ()
    # Of a sample of several images each changes by itself: it needs to know which channels are colours.
    each_input: ClassVar[bool] = True

    def __init__(
        self,
        brightness: Annotated[float, Between(0)] = 0.4,
        contrast: Annotated[float, Between(0)] = 0.4,
        saturation: Annotated[float, Between(0)] = 0.4,
        hue: Annotated[float, Between(0, 0.5)] = 0.1,
        grayscale: Annotated[float, Between(0, 1)] = 0.2,
        p: Annotated[float, Between(0, 1)] = 0.8,
    ) -> None:
        super().__init__()
        self.changes = (brightness, contrast, saturation, hue)
        self.grayscale = grayscale
        self.p = p

    def forward(self, image: Tensor, target: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Change colours.

        Args:
            image: uint8 ``(B, C, H, W)`` with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) channels.
            target: Left as it is.
            generator: Source of the draws, on the CPU.

        Raises:
            ValueError: There are more than four channels.
        """
        count = len(image)
        chosen = torch.rand(count, generator=generator) < self.p
        drawn = torch.rand((count, 4), generator=generator)
        order = torch.rand((count, 4), generator=generator).argsort(1)
        gray = torch.rand(count, generator=generator) < self.grayscale
        # Each image's changes in their order; 4 = none.
        order = torch.where(chosen[:, None], order, 4)

        changed = torch.empty_like(image, memory_format=torch.contiguous_format)
        # As many images at once as stay in the processor's cache from one operation to the next.
        together = max(1, count) if image.device.type != "cpu" else max(1, IN_CACHE // max(1, image[:1].numel()))
        for start in range(0, count, together):
            part = slice(start, start + together)
            changed[part] = self._changed(image[part].contiguous(), order[part], drawn[part], gray[part])
        return changed, target

    def _changed(self, image: Tensor, order: Tensor, drawn: Tensor, gray: Tensor) -> Tensor:
        count = color_channels(image)
        coloured, colours = count == 3, image[:, :count].float().div_(255)
        steps = (_brighten, _contrast, saturate, turn_hue)[: 4 if coloured else 2]
        for position in range(4):
            for number, (change, most) in enumerate(zip(steps, self.changes, strict=False)):
                rows = (order[:, position] == number).nonzero().flatten()
                if most and len(rows):
                    low, high = (-most, most) if change is turn_hue else (max(0.0, 1 - most), 1 + most)
                    factor = (low + (high - low) * drawn[rows, number]).view(-1, 1, 1, 1)
                    factor = factor.to(image.device, non_blocking=True)
                    put(colours, rows, change(taken(colours, rows), factor).clamp_(0, 1))
        if coloured and len(rows := gray.nonzero().flatten()):
            put(colours, rows, luma(taken(colours, rows)).expand(-1, 3, -1, -1))
        pixels = colours.mul_(255).round_().to(torch.uint8)
        return torch.cat((pixels, image[:, pixels.shape[1] :]), 1)


def _brighten(colours: Tensor, factor: Tensor) -> Tensor:
    return colours * factor


def _contrast(colours: Tensor, factor: Tensor) -> Tensor:
    mean = luma(colours).mean((1, 2, 3), keepdim=True)
    return mean + factor * (colours - mean)
