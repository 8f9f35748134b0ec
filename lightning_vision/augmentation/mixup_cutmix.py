"""Blends of two images, or images with a part of another one."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from lightning_vision.augmentation.cutmix import boxes, own_share, paste
from lightning_vision.augmentation.mixing import Mix, draw_pairs
from lightning_vision.augmentation.mixup import blend
from lightning_vision.types import Between


class MixupCutMix(nn.Module):
    """Blend each image of a batch with another one, or paste a box of the other one: one of the two, drawn per image.

    The recipe of RSB (Wightman et al., 2021) and DeiT; see ``Mixup`` and ``CutMix``. (timm and mmpretrain draw one of
    the two for the batch.)

    Args:
        mixup_alpha: Of the Beta distribution that the share of a blended image is drawn from.
        cutmix_alpha: Of the Beta distribution that the area of a box is drawn from.
        switch_p: Probability of a box, where an image is mixed.
        p: Probability that an image is mixed, drawn for every image of the batch by itself.
    """

    injected: ClassVar[tuple[str, ...]] = ()
    mixes: ClassVar[bool] = True
    blends: ClassVar[bool] = True

    def __init__(
        self,
        mixup_alpha: Annotated[float, Between(0, low_open=True)] = 0.2,
        cutmix_alpha: Annotated[float, Between(0, low_open=True)] = 1.0,
        switch_p: Annotated[float, Between(0, 1)] = 0.5,
        p: Annotated[float, Between(0, 1)] = 1.0,
    ) -> None:
        super().__init__()
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.switch_p = switch_p
        self.p = p

    def mix(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, Mix]:
        """Mix images.

        Args:
            image: uint8 ``(B, C, H, W)``.
            generator: Source of the draws, on the CPU.

        Returns:
            The images, and how they were made.
        """
        count, (height, width) = len(image), image.shape[-2:]
        partner, blended, outside = draw_pairs(count, self.p, generator, self.mixup_alpha, self.cutmix_alpha)
        boxed = torch.rand(count, generator=generator) < self.switch_p
        blended, outside = blended.where(~boxed, 1.0), outside.where(boxed, 1.0)
        inside = boxes(outside, height, width, generator)
        # Of the two, one share of each image is 1.
        share = blended * own_share(inside)
        pasted = inside.to(image.device, non_blocking=True)
        return blend(paste(image, partner, pasted), partner, blended, image), Mix(partner, share, pasted, blended)
