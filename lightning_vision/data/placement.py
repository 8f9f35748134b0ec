"""Where the pixels of a file come to lie in the image that the model sees, and the way back."""

from __future__ import annotations

from typing import Literal, get_args

ResizeMethod = Literal["interpolate", "crop_or_pad", "resize_crop"]
RESIZE_METHODS: tuple[str, ...] = get_args(ResizeMethod)
# What most ImageNet models are evaluated with: the short side to 256, and 224 pixels of it.
CROP_FRACTION = 0.875

Size = tuple[int, int]


def scaled_size(file: Size, wanted: Size, method: str, crop_fraction: float = CROP_FRACTION) -> Size:
    """Return the height and width that a file is resized to, before its centre is cut out or a border is added.

    Args:
        file: Height and width of the file, after its EXIF orientation.
        wanted: Height and width of the result.
        method: ``interpolate``: that of the result. ``crop_or_pad``: that of the file. ``resize_crop``: the aspect
            stays, and the result is ``crop_fraction`` of the side that is tighter.
        crop_fraction: Share of the tighter side that is kept by ``resize_crop``, in (0, 1].
    """
    if method == "interpolate":
        return wanted
    if method == "crop_or_pad":
        return file
    target = tuple(max(int(side / crop_fraction), side) for side in wanted)
    tight = 0 if target[0] * file[1] >= target[1] * file[0] else 1
    loose = 1 - tight
    # Rounded down as torchvision's Resize does, so that a pretrained model sees the pixels it was evaluated with.
    other = max(target[tight] * file[loose] // file[tight], wanted[loose])
    return (target[tight], other) if tight == 0 else (other, target[tight])


def centred(have: int, want: int) -> int:
    """Return where the result begins along a side: above 0 for a crop, below 0 for a border; odd pixels go last."""
    return (have - want) // 2 if have >= want else -((want - have) // 2)
