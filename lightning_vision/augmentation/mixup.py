"""Blends of two images."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from lightning_vision.augmentation.mixing import Mix, draw_pairs
from lightning_vision.augmentation.rows import put, taken
from lightning_vision.types import Between


class Mixup(nn.Module):
    """Blend each image of a batch with another one, and their targets alike (Zhang et al., ICLR 2018).

    ``share * image + (1 - share) * partner`` with the share from Beta(alpha, alpha), rounded once. Share and partner
    are drawn for every image by itself (in the paper's code, as in mmpretrain and by default in timm, one share is
    drawn for the batch). Targets become probabilities, of masks those of every pixel: the loss must take them.

    Args:
        alpha: Of the Beta distribution: the smaller, the nearer to one of the two images. 0.2 is that of the paper for
            ImageNet, and of mmpretrain.
        p: Probability that an image is blended, drawn for every image of the batch by itself.
    """

    injected: ClassVar[tuple[str, ...]] = ()
    mixes: ClassVar[bool] = True
    # What becomes of masks are probabilities, not classes.
    blends: ClassVar[bool] = True

    def __init__(
        self,
        alpha: Annotated[float, Between(0, low_open=True)] = 0.2,
        p: Annotated[float, Between(0, 1)] = 1.0,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.p = p

    def mix(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Mix]:
        """Mix images.

        Args:
            image: uint8 ``(B, C, H, W)``.
            generator: Source of the draws, on the CPU.

        Returns:
            The images, and how they were made.
        """
        partner, share = draw_pairs(len(image), self.p, generator, self.alpha)
        return blend(image, partner, share), Mix(partner, share, blended=share)


def blend(image: Tensor, partner: Tensor, share: Tensor, others: Tensor | None = None) -> Tensor:
    """Return ``share * image + (1 - share) * others[partner]``.

    Args:
        image: uint8 ``(B, C, H, W)``.
        partner: int64 ``(B,)``, on the CPU.
        share: ``(B,)`` in [0, 1], on the CPU.
        others: uint8 ``(B, C, H, W)``; None: the images themselves.
    """
    others = image if others is None else others
    rows = (share < 1).nonzero().flatten()
    if image.device.type != "cpu":
        own, other = taken(image, rows).float(), taken(others, partner[rows]).float()
        weight = share[rows].view(-1, 1, 1, 1).to(image.device, non_blocking=True)
        mixed = image.clone()
        put(mixed, rows, torch.lerp(other, own, weight).round_().to(torch.uint8))
        return mixed
    # One by one they stay in the processor's cache from one operation to the next, and each has a plain factor.
    mixed, own, other = image.clone(), torch.empty(image.shape[1:]), torch.empty(image.shape[1:])
    for row in rows.tolist():
        own.copy_(image[row])
        other.copy_(others[partner[row]])
        mixed[row] = torch.lerp(other, own, float(share[row]), out=own).round_()
    return mixed
