"""Images with a part of another one."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from lightning_vision.augmentation.mixing import Mix, draw_pairs
from lightning_vision.augmentation.rows import taken
from lightning_vision.types import Between


class CutMix(nn.Module):
    """Paste a box of another image of the batch into each image (Yun et al., ICCV 2019).

    The box has the image's ratio of sides and ``1 - share`` of its area, with the share from Beta(alpha, alpha), and a
    centre drawn evenly from the image's pixels. What reaches beyond the image is cut off, and the share of the label is
    that of the pixels that are left. Share, box and partner are drawn for every image by itself (in the paper's code,
    as in mmpretrain and by default in timm, one box is drawn for the batch). Masks are pasted as the images are, and
    stay class maps that any loss takes; labels become probabilities.

    Args:
        alpha: Of the Beta distribution; 1, the paper's for ImageNet, makes all areas equally probable.
        p: Probability that an image gets a box, drawn for every image of the batch by itself.
    """

    injected: ClassVar[tuple[str, ...]] = ()
    mixes: ClassVar[bool] = True
    blends: ClassVar[bool] = False

    def __init__(
        self,
        alpha: Annotated[float, Between(0, low_open=True)] = 1.0,
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
        height, width = image.shape[-2:]
        partner, outside = draw_pairs(len(image), self.p, generator, self.alpha)
        inside = boxes(outside, height, width, generator)
        pasted = inside.to(image.device, non_blocking=True)
        return paste(image, partner, pasted), Mix(partner, own_share(inside), pasted)


def boxes(share: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw a box for every image.

    Args:
        share: ``(B,)`` in [0, 1], of the area outside of the box; 1: there is no box.
        height: Of the images.
        width: Of the images.
        generator: Source of the draws, on the CPU.

    Returns:
        The pixels inside, bool ``(B, H, W)``.
    """
    sides = (1 - share).clamp(min=0).sqrt()
    inside = []
    for length in (height, width):
        # Whole pixels, as many before the centre as behind it, or one less: as in timm. (The paper's code makes odd
        # sides one shorter.)
        side = (sides * length).long()
        start = torch.randint(length, (len(share),), generator=generator) - side // 2
        place = torch.arange(length)
        inside.append(((place >= start[:, None]) & (place < (start + side)[:, None])).view(torch.uint8))
    # On bytes, where "and" is ten times as fast as on bool.
    return (inside[0][:, :, None] & inside[1][:, None, :]).view(torch.bool)


def own_share(pasted: Tensor) -> Tensor:
    """Share of the pixels that are not pasted, float32 ``(B,)`` of bool ``(B, H, W)``."""
    return 1 - pasted.view(torch.uint8).flatten(1).sum(1, dtype=torch.int32) / pasted[:1].numel()


def paste(image: Tensor, partner: Tensor, pasted: Tensor) -> Tensor:
    """Return uint8 images ``(B, C, H, W)`` with the partners' pixels where ``pasted`` ``(B, H, W)`` says so."""
    # Bit by bit, which takes half as long as a choice by pixel: the other image where all bits of the mask are set.
    mask = pasted[:, None].view(torch.uint8).neg()
    return taken(image, partner).bitwise_xor_(image).bitwise_and_(mask).bitwise_xor_(image)
