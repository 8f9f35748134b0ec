"""Mirroring."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from lightning_vision.augmentation.rows import put, taken
from lightning_vision.types import Between


class RandomHorizontalFlip(nn.Module):
    """Mirror each image left to right with probability ``p``; a class map is mirrored with its image.

    Exact on uint8: pixels move, their values do not change.

    Args:
        p: Probability of a flip, drawn for every image of the batch by itself.
    """

    injected: ClassVar[tuple[str, ...]] = ()

    def __init__(self, p: Annotated[float, Between(0, 1)] = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, image: Tensor, target: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Flip.

        Args:
            image: uint8 ``(B, C, H, W)``.
            target: Class map ``(B, H, W)``, class ids ``(B,)`` (left as they are) or None.
            generator: Source of the draws, on the CPU.
        """
        return mirrored(image, target, torch.rand(len(image), generator=generator) < self.p, -1)


def mirrored(image: Tensor, target: Tensor | None, chosen: Tensor, axis: int) -> tuple[Tensor, Tensor | None]:
    """Mirror the chosen images of a batch, bool ``(B,)`` on the CPU, and their class maps, along one axis."""
    rows = chosen.nonzero().flatten()
    if not len(rows):
        return image, target
    flipped = image.clone()
    put(flipped, rows, taken(image, rows).flip(axis))
    if target is not None and target.ndim == 3:
        moved = target.clone()
        put(moved, rows, taken(target, rows).flip(axis))
        target = moved
    return flipped, target
