"""What the random changes of colour have in common: the draws, alpha, and the way through the cache."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from lightning_vision.augmentation.ranges import uniform
from lightning_vision.augmentation.rows import put, taken
from lightning_vision.errors import ConfigError
from lightning_vision.processor import IN_CACHE
from lightning_vision.types import Below, Between


class ColorChange(nn.Module):
    """Change the colours of each image with probability ``p``; alpha and targets stay.

    A subclass says in ``change`` what is done, and in ``draw`` by how much.

    Args:
        p: Probability, drawn for every image by itself.
    """

    injected: ClassVar[tuple[str, ...]] = ()
    # Of a sample of several images each changes by itself: it needs to know which channels are colours.
    each_input: ClassVar[bool] = True

    def __init__(self, p: float) -> None:
        super().__init__()
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
        amount = self.draw(count, generator)
        colours, rows = color_channels(image), chosen.nonzero().flatten()
        if not len(rows):
            return image, target
        image = image.clone(memory_format=torch.contiguous_format)
        change_rows(image[:, :colours], rows, amount[rows], self.change)
        return image, target

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the amount for each image, ``(B,)`` on the CPU; zeros where there is nothing to draw."""
        return torch.zeros(count)

    def change(self, colours: Tensor, amount: Tensor) -> Tensor:
        """Return changed colours.

        Args:
            colours: uint8 ``(B, 1, H, W)`` or ``(B, 3, H, W)``, without alpha.
            amount: What was drawn for these images.
        """
        raise NotImplementedError


class FactorChange(ColorChange):
    """Change the colours of each image by a factor of its own, with probability ``p``.

    Args:
        min: Smallest factor; the factors are drawn evenly.
        max: Largest factor.
        p: Probability, drawn for every image by itself.

    Raises:
        ConfigError: Not 0 < min < max.
    """

    def __init__(
        self,
        min: Annotated[float, Between(0, low_open=True), Below("max")] = 0.5,
        max: Annotated[float, Between(0, low_open=True)] = 2.0,
        p: Annotated[float, Between(0, 1)] = 0.5,
    ) -> None:
        super().__init__(p)
        if not 0 < min < max < math.inf:
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()
            raise ConfigError(
                f"The factors of {name} are drawn from a range.",
                given=f"min={min:g}, max={max:g}",
                expected="numbers greater than 0, min less than max",
                override=f"augmentation.{name}.min=0.5 augmentation.{name}.max=2.0",
            )
        self.min, self.max = min, max

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw factors."""
        return uniform((self.min, self.max), (count,), generator)


def change_rows(colours: Tensor, rows: Tensor, amount: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Change some images of a batch in place.

    Args:
        colours: uint8 ``(B, 1, H, W)`` or ``(B, 3, H, W)``, without alpha.
        rows: Which, int64 ``(N,)`` on the CPU, rising.
        amount: By how much, ``(N,)`` on the CPU.
        change: Returns changed colours for some of them.
    """
    # As many images at once as stay in the processor's cache from one operation to the next.
    together = len(rows) if colours.device.type != "cpu" else max(1, IN_CACHE // max(1, colours[:1].numel()))
    for some, amounts in zip(rows.split(together), amount.split(together), strict=True):
        first, last = int(some[0]), int(some[-1])
        amounts = amounts.to(colours.device, non_blocking=True)
        if last - first < len(some):  # neighbours, which need not be copied out of the batch
            colours[first : last + 1] = change(colours[first : last + 1], amounts)
        else:
            put(colours, some, change(taken(colours, some), amounts))


def color_channels(image: Tensor) -> int:
    """How many of the channels of a batch are colours, not alpha: 1 or 3.

    Raises:
        ValueError: There are more than four channels.
    """
    channels = image.shape[1]
    if channels > 4:
        raise ValueError(f"the colours of an image with {channels} channels are not known")
    return 3 if channels >= 3 else 1
