"""What the automatic policies have in common: their operations, each on all images of a batch that drew it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from lightning_vision.augmentation import color
from lightning_vision.augmentation.color_change import change_rows, color_channels
from lightning_vision.augmentation.warp import rotation, warp

# How much of an operation: a level from 0 to 1, a sign and the image's height and width, to what the operation takes.
Amount = Callable[[Tensor, Tensor, tuple[int, int]], Tensor]
Space = Mapping[str, Amount]

COLORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": lambda colours, _: color.autocontrast(colours),
    "brightness": color.adjust_brightness,
    "color": color.adjust_saturation,
    "contrast": color.adjust_contrast,
    "equalize": lambda colours, _: color.equalize(colours),
    "invert": lambda colours, _: color.invert(colours),
    "posterize": color.posterize,
    "sharpness": color.adjust_sharpness,
    "solarize": color.solarize,
    "solarize_add": color.solarize_add,
}


class Policy(nn.Module):
    """Change each image by operations that it draws for itself; a class map moves with its image.

    A subclass gives the operations in ``space``, and in ``draw`` which of them, one after the other, and their levels.
    The images of a sample change alike. Images are interpolated bilinearly, class maps take the nearest pixel. Grey
    images draw as others do, and ``color`` leaves them as they are; alpha moves with its image and does not change
    otherwise.

    Args:
        space: The operations by name: those of ``COLORS`` and ``MOVES``; any other does nothing.
        fill: Value outside the image, in all channels.
        ignored: Value of class maps outside the image; None: there are none.
        num_inputs: Images of a sample, along the channels.
    """

    injected: ClassVar[tuple[str, ...]] = ("ignored", "num_inputs")

    def __init__(self, space: Space, fill: int, ignored: int | None, num_inputs: int) -> None:
        super().__init__()
        self.space = space
        self.fill = fill
        self.ignored = ignored
        self.num_inputs = num_inputs

    def forward(self, image: Tensor, target: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Change images.

        Args:
            image: uint8 ``(B, num_inputs * C, H, W)`` with C = 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).
            target: Class map ``(B, H, W)``, any other target (left as it is) or None.
            generator: Source of the draws, on the CPU.

        Raises:
            ValueError: There are more than four channels an image.
        """
        image = image.clone(memory_format=torch.contiguous_format)
        for operation, level in self.draw(len(image), generator):
            sign = 1.0 - 2.0 * torch.randint(2, (len(image),), generator=generator)
            image, target = self.apply_operations(image, target, operation, level, sign)
        return image, target

    def draw(self, count: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """Draw what is done, one operation of each image after the other.

        Returns:
            Positions in ``space``, int64 ``(count,)``, -1 = nothing; and levels from 0 to 1, float64 ``(count,)``.
        """
        raise NotImplementedError

    def apply_operations(
        self, image: Tensor, target: Tensor | None, operation: Tensor, level: Tensor, sign: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Do one operation to each image, which is overwritten: its position in ``space``, its level and its sign."""
        size = (image.shape[-2], image.shape[-1])
        inputs = image.view(-1, image.shape[1] // self.num_inputs, *size)
        colours = inputs[:, : color_channels(inputs)]
        matrix = torch.eye(2, 3).repeat(len(image), 1, 1)
        moved = torch.zeros(len(image), dtype=torch.bool)
        for number, (name, amount) in enumerate(self.space.items()):
            rows = (operation == number).nonzero().flatten()
            if not len(rows):
                continue
            values = amount(level[rows], sign[rows], size).float()
            if name in MOVES:
                matrix[rows] = MOVES[name](values, size)
                moved[rows] = True
            elif name in COLORS:
                every = (self.num_inputs * rows[:, None] + torch.arange(self.num_inputs)).flatten()
                change_rows(colours, every, values.repeat_interleave(self.num_inputs), COLORS[name])
        return warp(image, target, matrix, moved, self.fill, self.ignored)


def _shear_x(factor: Tensor, size: tuple[int, int]) -> Tensor:
    """The upper edge stays, as in Pillow's coefficients (1, factor, 0, 0, 1, 0)."""
    one, none = torch.ones_like(factor), torch.zeros_like(factor)
    return torch.stack((one, factor, factor * size[0] / 2, none, one, none), 1).view(-1, 2, 3)


def _shear_y(factor: Tensor, size: tuple[int, int]) -> Tensor:
    """The left edge stays."""
    one, none = torch.ones_like(factor), torch.zeros_like(factor)
    return torch.stack((one, none, none, factor, one, factor * size[1] / 2), 1).view(-1, 2, 3)


def _translate_x(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """To the right."""
    one, none = torch.ones_like(pixels), torch.zeros_like(pixels)
    return torch.stack((one, none, -pixels, none, one, none), 1).view(-1, 2, 3)


def _translate_y(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Down."""
    one, none = torch.ones_like(pixels), torch.zeros_like(pixels)
    return torch.stack((one, none, none, none, one, -pixels), 1).view(-1, 2, 3)


MOVES: Mapping[str, Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "rotate": lambda degrees, _: rotation(degrees.deg2rad()),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}


def nothing(level: Tensor, sign: Tensor, size: tuple[int, int]) -> Tensor:
    """The amount of an operation that has none."""
    return torch.zeros_like(level)


def torchvision_space(
    factor: float, shear: float, degrees: float, bits: int, pixels: Callable[[int], float]
) -> dict[str, Amount]:
    """The operations that torchvision's TrivialAugmentWide and AutoAugment share, with their largest amounts.

    Args:
        factor: Largest change of the factors of brightness, color, contrast and sharpness.
        shear: Largest shear.
        degrees: Largest angle.
        bits: Most bits that posterize takes away.
        pixels: Farthest way along a side of so many pixels.
    """

    def changed(level: Tensor, sign: Tensor, size: tuple[int, int]) -> Tensor:
        return 1 + factor * level * sign

    return {
        "shear_x": lambda level, sign, size: shear * level * sign,
        "shear_y": lambda level, sign, size: shear * level * sign,
        "translate_x": lambda level, sign, size: (pixels(size[1]) * level).floor() * sign,
        "translate_y": lambda level, sign, size: (pixels(size[0]) * level).floor() * sign,
        "rotate": lambda level, sign, size: degrees * level * sign,
        "brightness": changed,
        "color": changed,
        "contrast": changed,
        "sharpness": changed,
        "posterize": lambda level, sign, size: (8 - bits * level).round(),
        "solarize": lambda level, sign, size: 255 * (1 - level),
        "autocontrast": nothing,
        "equalize": nothing,
    }
