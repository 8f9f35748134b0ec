"""Mirroring."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

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
    if not chosen.any():
        return image, target
    moves = target is not None and target.ndim == 3
    return _mirrored(image, chosen, axis), _mirrored(target, chosen, axis) if target is not None and moves else target


def _mirrored(batch: Tensor, chosen: Tensor, axis: int) -> Tensor:
    if batch.device.type == "cpu":
        # Blocks of memory, a tenth of the time of choosing between two numbers at every place.
        return torch.stack([one.flip(axis) if flip else one for one, flip in zip(batch, chosen.tolist(), strict=True)])
    there = chosen.to(batch.device, non_blocking=True).view(-1, *[1] * (batch.ndim - 1))
    return torch.where(there, batch.flip(axis), batch)
