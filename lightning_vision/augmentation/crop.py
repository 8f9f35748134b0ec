"""Random parts of images at their own size."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.types import Between


class RandomCrop(nn.Module):
    """Cut a random part of the model's input size out of each image; a class map is cut as its image is.

    Images are padded first: by ``padding`` on every side, and as far as needed where they are smaller than the part.
    Exact on uint8: pixels move, their values do not change.

    Args:
        size: Height and width of the part, in pixels.
        padding: Pixels that are added on every side first; 4 is usual for images of 32 (He et al., CVPR 2016).
        p: Probability that the place is random, drawn for every image of the batch by itself; it is the middle else.
        fill: Value of the padding, in all channels.
        ignored: Value of the padding of class maps; None: there are none.
    """

    injected: ClassVar[tuple[str, ...]] = ("size", "ignored")

    def __init__(
        self,
        size: tuple[int, int],
        padding: Annotated[int, Between(0)] = 4,
        p: Annotated[float, Between(0, 1)] = 1.0,
        fill: Annotated[int, Between(0, 255)] = 0,
        ignored: int | None = None,
    ) -> None:
        super().__init__()
        self.size = (int(size[0]), int(size[1]))
        self.padding = padding
        self.p = p
        self.fill = fill
        self.ignored = ignored

    def forward(self, image: Tensor, target: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Crop.

        Args:
            image: uint8 ``(B, C, H, W)``.
            target: Class map ``(B, H, W)``, class ids ``(B,)`` (left as they are) or None.
            generator: Source of the draws, on the CPU.

        Raises:
            ValueError: There is a class map and no value for its padding.
        """
        count, sides = len(image), [image.shape[-2], image.shape[-1]]
        # What is missing on each side, the odd pixel below and on the right.
        missing = [max(0, want - side - 2 * self.padding) for want, side in zip(self.size, sides, strict=True)]
        top, left = (self.padding + pixels // 2 for pixels in missing)
        bottom, right = (self.padding + pixels - pixels // 2 for pixels in missing)
        padded = (sides[0] + top + bottom, sides[1] + left + right)
        room = [side - want for side, want in zip(padded, self.size, strict=True)]
        drawn = (torch.rand((count, 2), generator=generator) * torch.tensor([float(r + 1) for r in room])).long()
        chosen = torch.rand(count, generator=generator) < self.p
        corner = drawn.where(chosen[:, None], torch.tensor([r // 2 for r in room]))
        padding = (left, right, top, bottom)
        if any(padding):
            image = F.pad(image, padding, value=self.fill)
        if target is not None and target.ndim == 3:
            if any(padding):
                if self.ignored is None:
                    raise ValueError("a class map that is padded needs a value for what is added")
                target = F.pad(target, padding, value=self.ignored)
            target = _parts(target[:, None], corner, self.size)[:, 0]
        return _parts(image, corner, self.size), target


def _parts(image: Tensor, corner: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut ``(B, C, h, w)`` out of ``(B, C, H, W)``, each image at its own place ``(B, 2)``, on the CPU."""
    height, width = size
    if image.device.type != "cpu":
        windows = image.unfold(2, height, 1).unfold(3, width, 1)
        top, left = corner.to(image.device, non_blocking=True).unbind(1)
        return windows[torch.arange(len(image), device=image.device), :, top, left]
    # On a processor blocks of memory are moved four times as fast as numbers that are looked for.
    cut = image.new_empty((*image.shape[:2], height, width))
    for part, one, (top, left) in zip(cut, image, corner.tolist(), strict=True):
        part.copy_(one[:, top : top + height, left : left + width])
    return cut
