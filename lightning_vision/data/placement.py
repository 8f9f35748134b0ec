"""Where the pixels of a file come to lie in the image that the model sees, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Size = tuple[int, int]


@dataclass(frozen=True)
class Resize:
    """How a file is brought to the size of the model's input.

    Args:
        method: ``interpolate`` scales to the size, whatever the aspect. ``crop_or_pad`` keeps the scale and cuts the
            centre or adds a border. ``resize_crop`` keeps the aspect: it scales until the result is ``crop_fraction``
            of the side that is tighter, and cuts the centre. ``resize_pad`` keeps the aspect: it scales until the
            tighter side fills the size, and adds a border along the other.
        crop_fraction: Share of the tighter side that ``resize_crop`` keeps, in (0, 1].
        crop_rounding: Half a pixel of the offset of ``resize_crop``: to the ``even`` number, as torchvision and timm
            have it, or ``down``, as transformers has it.
        filter: ``bilinear`` or ``bicubic``, both with antialiasing; for images, never for masks.
    """

    method: Literal["interpolate", "crop_or_pad", "resize_crop", "resize_pad"] = "interpolate"
    crop_fraction: float = 0.875
    crop_rounding: Literal["even", "down"] = "even"
    filter: Literal["bilinear", "bicubic"] = "bilinear"

    def scaled(self, file: Size, wanted: Size) -> Size:
        """Return the height and width that a file is scaled to, before its centre is cut out or a border is added.

        Args:
            file: Height and width of the file, after its EXIF orientation.
            wanted: Height and width of the result.
        """
        if self.method == "interpolate":
            return wanted
        if self.method == "crop_or_pad":
            return file
        if self.method == "resize_pad":
            tight = 0 if wanted[0] * file[1] <= wanted[1] * file[0] else 1
            target: tuple[int, ...] = wanted
            # To the nearest pixel; no side vanishes, however long the other is.
            other = max(1, (2 * wanted[tight] * file[1 - tight] + file[tight]) // (2 * file[tight]))
        else:
            target = tuple(max(int(side / self.crop_fraction), side) for side in wanted)
            tight = 0 if target[0] * file[1] >= target[1] * file[0] else 1
            # Rounded down, as the libraries do: a pretrained model sees the pixels that it was evaluated with.
            other = max(target[tight] * file[1 - tight] // file[tight], wanted[1 - tight])
        return (target[tight], other) if tight == 0 else (other, target[tight])

    def offset(self, have: int, want: int) -> int:
        """Return where the result begins along a side of the scaled file: above 0 for a crop, below 0 for a border."""
        if self.method == "resize_crop" and self.crop_rounding == "even":
            return round((have - want) / 2)
        return (have - want) // 2 if have >= want else -((want - have) // 2)


SCALED = Resize()
CROPPED = Resize("crop_or_pad")
