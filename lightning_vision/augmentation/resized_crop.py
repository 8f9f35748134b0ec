"""Random parts of images, enlarged to their size."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.augmentation.ranges import Range, first_that_fits, ordered
from lightning_vision.types import Between, Ordered

Share = Annotated[float, Between(0, 1, low_open=True)]


class RandomResizedCrop(nn.Module):
    """Cut a random part out of each image and bring it to the model's input size; a class map is cut as its image is.

    The part is drawn as in Inception (Szegedy et al., CVPR 2015) and torchvision: an area, a ratio and a place, up to
    ten times until it fits into the image, else the largest centred part of an allowed ratio. Where a part shrinks it
    is smoothed (antialias); class maps take the nearest pixel.

    Args:
        scale: Smallest and largest area of the part, relative to the image's. (SimCLR and torchvision begin at 0.08;
            where an object fills a small share of its image, so small a part often misses it.)
        ratio: Smallest and largest width over height of the part, in pixels.
        interpolation: Between pixels: ``bilinear``, or ``bicubic``, which is sharper and takes longer (SimCLR's own
            code, timm's recipes).
        p: Probability of a crop, drawn for every image of the batch by itself; else it is the whole image.
        size: Height and width of what comes out, in pixels; None: as large as the images are.

    Raises:
        ConfigError: A range is empty or out of bounds.
    """

    injected: ClassVar[tuple[str, ...]] = ("size",)

    def __init__(
        self,
        scale: Annotated[tuple[Share, Share], Ordered()] = (0.2, 1.0),
        ratio: Range = (0.75, 1.3333333333333333),
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        p: Annotated[float, Between(0, 1)] = 1.0,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.scale = ordered(scale, "random_resized_crop.scale", 1.0)
        self.ratio = ordered(ratio, "random_resized_crop.ratio")
        self.interpolation = interpolation
        self.p = p
        self.size = None if size is None else (int(size[0]), int(size[1]))

    def forward(self, image: Tensor, target: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Crop.

        Args:
            image: uint8 ``(B, C, H, W)``.
            target: Class map ``(B, H, W)``, class ids ``(B,)`` (left as they are) or None.
            generator: Source of the draws, on the CPU.
        """
        count, _, *old = image.shape
        height, width = size = self.size or (old[0], old[1])
        boxes = self.boxes(count, old[0], old[1], generator)
        resample = _one_by_one if image.device.type == "cpu" else _at_once
        cropped = resample(image, boxes, size, self.interpolation)
        if target is not None and target.ndim == 3:
            # In whole numbers, so that a new pixel whose centre lies between two old ones always takes the same.
            top, left, tall, wide = boxes.long().to(target.device, non_blocking=True).split(1, 1)
            y = top + (2 * torch.arange(height, device=target.device) + 1) * tall // (2 * height)
            x = left + (2 * torch.arange(width, device=target.device) + 1) * wide // (2 * width)
            rows = target.gather(1, y[:, :, None].expand(-1, -1, old[1]))
            target = rows.gather(2, x[:, None].expand(-1, height, -1))
        return cropped, target

    def boxes(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw parts of images: whole pixels, float32 ``(count, 4)`` of top, left, height, width."""
        whole = torch.tensor([float(height), float(width)])
        sides, fit = first_that_fits(
            self.scale,
            self.ratio,
            height * width,
            count,
            lambda tried: (tried >= 1) & (tried <= whole.flip(0)),
            generator,
        )
        # Its first side is the width.
        sides = sides.flip(1)
        place = torch.rand((count, 2), generator=generator)
        chosen = torch.rand(count, generator=generator) < self.p
        corner = (place * (whole - sides + 1)).floor()
        # The largest part in the middle.
        widest = min(max(width / height, self.ratio[0]), self.ratio[1])
        fallback = torch.tensor([round(min(height, width / widest)), round(min(width, height * widest))]).clamp(min=1)
        sides = sides.where(fit, fallback.float())
        corner = corner.where(fit, ((whole - fallback) / 2).floor())
        sides, corner = sides.where(chosen[:, None], whole), corner.where(chosen[:, None], 0.0)
        return torch.cat((corner, sides), 1)


def _one_by_one(image: Tensor, boxes: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Crop and resize ``(B, C, H, W)`` uint8 image by image: on uint8, where processors are ten times as fast."""
    cut = image.new_empty((*image.shape[:2], *size))
    for new, one, (top, left, height, width) in zip(cut, image, boxes.int().tolist(), strict=True):
        part = one[:, top : top + height, left : left + width]
        # With antialias, which changes nothing where nothing shrinks, torch takes its quick way for uint8.
        whole = (height, width) == size
        new.copy_(part if whole else F.interpolate(part[None], size, mode=mode, antialias=True)[0])
    return cut


def _at_once(image: Tensor, boxes: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """The same for the whole batch at once, up to rounding: on a GPU, without waiting for it."""
    top, left, tall, wide = boxes.to(image.device, non_blocking=True).T
    # Half precision, which a step may run in, does not hold 256 values and their fractions.
    with torch.autocast(image.device.type, enabled=False):
        down = _weights(top, tall, size[0], image.shape[-2], mode)
        across = _weights(left, wide, size[1], image.shape[-1], mode)
        pixels = down[:, None] @ image.float() @ across[:, None].mT
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


def _weights(start: Tensor, length: Tensor, new: int, old: int, mode: str) -> Tensor:
    """Share of each old pixel in each new one along an axis ``(B, new, old)``: torch's own with antialias."""
    start, length = start[:, None, None], length[:, None, None]
    scale = length / new
    place = torch.arange(old, device=start.device) - start
    centre = (torch.arange(new, device=start.device)[:, None] + 0.5) * scale
    away = ((place + 0.5 - centre) / scale.clamp(min=1)).abs()
    if mode == "bilinear":
        share = (1 - away).clamp(min=0)
    else:  # Keys' cubic with a = -0.5
        near = (1.5 * away - 2.5) * away**2 + 1
        far = ((-0.5 * away + 2.5) * away - 4) * away + 2
        share = torch.where(away < 1, near, torch.where(away < 2, far, 0.0))
    # No pixel beyond the part is mixed in.
    share = share * ((place >= 0) & (place < length))
    return share / share.sum(-1, keepdim=True)
