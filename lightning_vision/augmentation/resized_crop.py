"""Random parts of images, enlarged to their size."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.errors import ConfigError
from lightning_vision.types import Between

ATTEMPTS = 10


class RandomResizedCrop(nn.Module):
    """Cut a random part out of each image and enlarge it to the image's size; a class map is cut as its image is.

    The part is drawn as in Inception (Szegedy et al., CVPR 2015) and torchvision: an area, a ratio and a place, up to
    ten times until it fits into the image, else the largest centred part of an allowed ratio. It is never larger than
    the image, so nothing shrinks and nothing has to be smoothed first. Images are interpolated bilinearly (SimCLR's own
    code: bicubically); class maps take the nearest pixel.

    Args:
        scale: Smallest and largest area of the part, relative to the image's. (SimCLR and torchvision begin at 0.08;
            where an object fills a small share of its image, so small a part often misses it.)
        ratio: Smallest and largest width over height of the part, in pixels.
        p: Probability of a crop, drawn for every image of the batch by itself.

    Raises:
        ConfigError: A range is empty or out of bounds.
    """

    injected: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (0.75, 1.3333333333333333),
        p: Annotated[float, Between(0, 1)] = 1.0,
    ) -> None:
        super().__init__()
        self.scale = _range(scale, "scale", 1.0, "[0.2,1.0]")
        self.ratio = _range(ratio, "ratio", math.inf, "[0.75,1.333]")
        self.p = p

    def forward(self, image: Tensor, target: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Crop.

        Args:
            image: uint8 ``(B, C, H, W)``.
            target: Class map ``(B, H, W)``, class ids ``(B,)`` (left as they are) or None.
            generator: Source of the draws, on the CPU.
        """
        count, _, height, width = image.shape
        boxes = self.boxes(count, height, width, generator)
        resample = _one_by_one if image.device.type == "cpu" else _at_once
        cropped = resample(image, boxes)
        if target is not None and target.ndim == 3:
            # In whole numbers, so that a new pixel whose centre lies between two old ones always takes the same.
            top, left, tall, wide = boxes.long().to(target.device).split(1, 1)
            y = top + (2 * torch.arange(height, device=target.device) + 1) * tall // (2 * height)
            x = left + (2 * torch.arange(width, device=target.device) + 1) * wide // (2 * width)
            samples = torch.arange(count, device=target.device)[:, None, None]
            target = target[samples, y[:, :, None], x[:, None]]
        return cropped, target

    def boxes(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw parts of images: whole pixels, float32 ``(count, 4)`` of top, left, height, width."""
        areas = _uniform(self.scale, (count, ATTEMPTS), generator) * (height * width)
        ratios = _uniform((math.log(self.ratio[0]), math.log(self.ratio[1])), (count, ATTEMPTS), generator).exp()
        tried = torch.stack(((areas / ratios).sqrt().round(), (areas * ratios).sqrt().round()), -1)
        place = torch.rand((count, 2), generator=generator)
        chosen = torch.rand(count, generator=generator) < self.p

        whole = torch.tensor([height, width], dtype=torch.float32)
        fits = ((tried >= 1) & (tried <= whole)).all(-1)
        first = fits.int().argmax(1)
        sides = tried[torch.arange(count), first]
        corner = (place * (whole - sides + 1)).floor()
        # The largest part in the middle.
        widest = min(max(width / height, self.ratio[0]), self.ratio[1])
        fallback = torch.tensor([round(min(height, width / widest)), round(min(width, height * widest))]).clamp(min=1)
        sides = sides.where(fits.any(1, keepdim=True), fallback.float())
        corner = corner.where(fits.any(1, keepdim=True), ((whole - fallback) / 2).floor())
        sides, corner = sides.where(chosen[:, None], whole), corner.where(chosen[:, None], 0.0)
        return torch.cat((corner, sides), 1)


def _one_by_one(image: Tensor, boxes: Tensor) -> Tensor:
    """Crop and enlarge ``(B, C, H, W)`` uint8 image by image: on uint8, where processors are ten times as fast."""
    size = (image.shape[-2], image.shape[-1])
    parts = []
    for i, (top, left, height, width) in enumerate(boxes.int().tolist()):
        part = image[i : i + 1, :, top : top + height, left : left + width]
        # With antialias, which changes nothing where nothing shrinks, torch takes its quick way for uint8.
        whole = (height, width) == size
        parts.append(part if whole else F.interpolate(part, size, mode="bilinear", antialias=True))
    return torch.cat(parts) if parts else image


def _at_once(image: Tensor, boxes: Tensor) -> Tensor:
    """The same for the whole batch at once, up to rounding: on a GPU, without waiting for it."""
    height, width = image.shape[-2:]
    boxes = boxes.to(image.device)
    top, left, tall, wide = boxes.split(1, 1)
    # Where the centres of the new pixels lie, in pixels from the image's edges; no pixel beyond the part is mixed in.
    y = top + ((torch.arange(height, device=image.device) + 0.5) * tall / height).clamp(min=0.5).minimum(tall - 0.5)
    x = left + ((torch.arange(width, device=image.device) + 0.5) * wide / width).clamp(min=0.5).minimum(wide - 0.5)
    y, x = y * 2 / height - 1, x * 2 / width - 1
    grid = torch.stack((x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)), -1)
    pixels = F.grid_sample(image.float(), grid, padding_mode="border", align_corners=False)
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


def _range(given: tuple[float, float], name: str, highest: float, example: str) -> tuple[float, float]:
    low, high = given if len(given) == 2 else (math.nan, math.nan)
    if not 0 < low <= high <= highest:
        at_most = "" if math.isinf(highest) else f" and at most {highest:g}"
        raise ConfigError(
            f"The {name} of a random crop is a range.",
            given=list(given),
            expected=f"two numbers above 0{at_most}, the smaller first",
            override=f"augmentation.random_resized_crop.{name}={example}",
        )
    return float(low), float(high)


def _uniform(bounds: tuple[float, float], shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(shape, generator=generator)
