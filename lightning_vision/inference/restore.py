"""From the size that the model saw back to the size of each file."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.data.placement import Resize, Size


def restore_size(logits: Tensor, size: Size, resize: Resize) -> Tensor:
    """Bring the logits ``(C, h, w)`` of one image to the size of its file, ``(C, H, W)``.

    The way back of the preprocessing, bilinear where the scale changed: a border is cut off, and what a crop left out,
    so that nothing was predicted for it, is NaN.
    """
    seen = (logits.shape[-2], logits.shape[-1])
    scaled = resize.scaled(size, seen)
    logits = logits.float()
    # Where what is left of the scaled file begins, in the file and in what the model saw.
    offsets = [resize.offset(*sides) for sides in zip(scaled, seen, strict=True)]
    kept = [min(sides) for sides in zip(scaled, seen, strict=True)]
    rows, columns = (slice(max(0, -o), max(0, -o) + k) for o, k in zip(offsets, kept, strict=True))
    content = logits[:, rows, columns]
    if tuple(kept) == scaled:
        return content if scaled == size else F.interpolate(content.unsqueeze(0), size, mode="bilinear")[0]
    result = logits.new_full((logits.shape[0], *size), float("nan"))
    if scaled == size:
        top, left = (max(0, o) for o in offsets)
        part = content
    else:
        part, top, left = _uncrop(logits, size, scaled, offsets)
    result[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return result


def _uncrop(logits: Tensor, size: Size, scaled: Size, offsets: list[int]) -> tuple[Tensor, int, int]:
    """Interpolate those of the file's pixels that a crop shows; returns them and their place in the file."""
    coordinates = [
        _coordinates(file, new, seen, offset, logits.device)
        for file, new, seen, offset in zip(size, scaled, logits.shape[-2:], offsets, strict=True)
    ]
    inside = [(axis.abs() < 1).nonzero().flatten() for axis in coordinates]
    rows, columns = (axis[places] for axis, places in zip(coordinates, inside, strict=True))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    grid = torch.stack((x, y), -1).unsqueeze(0)
    part = F.grid_sample(logits.unsqueeze(0), grid, padding_mode="border", align_corners=False)[0]
    return part, int(inside[0][0]), int(inside[1][0])


def _coordinates(file: int, scaled: int, seen: int, offset: int, device: torch.device) -> Tensor:
    """Where the centres of a file's pixels lie in what the model saw, from -1 to 1 at its edges."""
    centres = (torch.arange(file, device=device) + 0.5) * (scaled / file) - offset
    return centres * (2 / seen) - 1
