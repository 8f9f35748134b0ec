"""Hidden rectangles."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_vision.augmentation.ranges import first_that_fits
from lightning_vision.errors import ConfigError
from lightning_vision.types import Below, Between


class RandomErasing(nn.Module):
    """Hide a random rectangle of each image (Zhong et al., AAAI 2020).

    Area, aspect and place are drawn as in timm, up to ten times until the rectangle fits into the image, else nothing
    is hidden. Timm erases normalised floats, here it is the pixels: its zeros are the mean colour, so ``fill`` is near
    it, and its Gaussian noise is even noise, as in the paper. A class map stays as it is: what is there stays true, and
    the model learns to tell it from what is around. Alpha stays too. Of a sample of several images each has its own
    rectangle.

    Args:
        p: Probability that something is hidden, drawn for every image by itself.
        min_area: Smallest area of the rectangle, as a share of the image.
        max_area: Largest area.
        min_aspect: Smallest height over width.
        max_aspect: Largest height over width; None: the inverse of ``min_aspect``.
        mode: ``const``: ``fill``; ``rand``: one random value for each channel; ``pixel``: random pixels.
        fill: Value of ``const``; 114 is ImageNet's mean.

    Raises:
        ConfigError: A smallest value is above its largest.
    """

    injected: ClassVar[tuple[str, ...]] = ()
    each_input: ClassVar[bool] = True

    def __init__(
        self,
        p: Annotated[float, Between(0, 1)] = 0.25,
        min_area: Annotated[float, Between(0, 1, low_open=True), Below("max_area", or_equal=True)] = 0.02,
        max_area: Annotated[float, Between(0, 1, low_open=True)] = 0.3333333333333333,
        min_aspect: Annotated[float, Between(0, low_open=True), Below("max_aspect", or_equal=True)] = 0.3,
        max_aspect: Annotated[float, Between(0, low_open=True)] | None = None,
        mode: Literal["const", "rand", "pixel"] = "const",
        fill: Annotated[int, Between(0, 255)] = 114,
    ) -> None:
        super().__init__()
        self.p = p
        self.area = _ordered(min_area, max_area, "area")
        self.aspect = _ordered(min_aspect, 1 / min_aspect if max_aspect is None else max_aspect, "aspect")
        self.mode = mode
        self.fill = fill

    def forward(self, image: Tensor, target: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Hide.

        Args:
            image: uint8 ``(B, C, H, W)`` with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) channels.
            target: Left as it is.
            generator: Source of the draws, on the CPU.
        """
        count, channels, height, width = image.shape
        boxes = self.boxes(count, height, width, generator)
        colours = channels - 1 if channels in (2, 4) else channels
        erase = self._one_by_one if image.device.type == "cpu" else self._at_once
        return erase(image, boxes, colours, generator), target

    def _one_by_one(self, image: Tensor, boxes: Tensor, colours: int, generator: torch.Generator) -> Tensor:
        """On a processor blocks of memory are written in a tenth of the time of a look at every pixel."""
        erased = image.clone()
        for one, (top, left, height, width) in zip(erased, boxes.tolist(), strict=True):
            if height:
                part = one[:colours, top : top + height, left : left + width]
                part.copy_(self._values(part.shape, part.device, generator))
        return erased

    def _at_once(self, image: Tensor, boxes: Tensor, colours: int, generator: torch.Generator) -> Tensor:
        """The same for the whole batch: on a GPU, without waiting for it."""
        top, left, tall, wide = boxes.to(image.device, non_blocking=True).T[..., None]
        channel, row, column = (torch.arange(side, device=image.device) for side in image.shape[1:])
        rows, columns = (row >= top) & (row < top + tall), (column >= left) & (column < left + wide)
        hidden = (channel < colours).view(1, -1, 1, 1) & rows[:, None, :, None] & columns[:, None, None]
        there = torch.Generator(image.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        values = self._values(image.shape, image.device, there)
        return torch.where(hidden, values, image)

    def _values(self, shape: torch.Size, device: torch.device, generator: torch.Generator) -> Tensor:
        """What is written over pixels ``(..., C, H, W)``, or what expands to that."""
        if self.mode == "const":
            return torch.full((), self.fill, dtype=torch.uint8, device=device)
        size = shape if self.mode == "pixel" else torch.Size((*shape[:-2], 1, 1))
        # Eight values from one random number, which takes a fifth of the time.
        drawn = torch.empty((size.numel() + 7) // 8, dtype=torch.int64, device=device)
        return drawn.random_(-(2**63), None, generator=generator).view(torch.uint8)[: size.numel()].view(size)

    def boxes(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw rectangles: whole pixels, int64 ``(count, 4)`` of top, left, height, width; without area for none."""
        whole = torch.tensor([float(height), float(width)])
        sides, fit = first_that_fits(
            self.area, self.aspect, height * width, count, lambda tried: tried < whole, generator
        )
        place = torch.rand((count, 2), generator=generator)
        chosen = torch.rand(count, generator=generator) < self.p
        corner = (place * (whole - sides + 1)).floor()
        done = chosen[:, None] & fit
        return torch.cat((corner, sides), 1).where(done, 0.0).long()


def _ordered(low: float, high: float, name: str) -> tuple[float, float]:
    if low > high:
        raise ConfigError(
            f"The smallest {name} of a hidden part is above the largest.",
            given=f"min_{name}={low:g}, max_{name}={high:g}",
            override=f"augmentation.random_erasing.min_{name}={high:g}",
        )
    return low, high
