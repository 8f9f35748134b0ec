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
    if scaled == seen:
        return F.interpolate(logits.unsqueeze(0), size, mode="bilinear")[0]
    result = logits.new_full((logits.shape[0], *size), float("nan"))
    if scaled == size:
        source, place = [], []
        for have, want in zip(seen, size, strict=True):
            common, offset = min(have, want), resize.offset(want, have)
            source.append(slice(max(0, -offset), max(0, -offset) + common))
            place.append(slice(max(0, offset), max(0, offset) + common))
        result[:, place[0], place[1]] = logits[:, source[0], source[1]]
        return result
    rows, columns = (
        _coordinates(*sides, resize.offset(*sides[1:]), logits.device) for sides in zip(size, scaled, seen, strict=True)
    )
    inside = [(axis.abs() < 1).nonzero().flatten() for axis in (rows, columns)]
    y, x = torch.meshgrid(rows[inside[0]], columns[inside[1]], indexing="ij")
    grid = torch.stack((x, y), -1).unsqueeze(0)
    part = F.grid_sample(logits.unsqueeze(0), grid, padding_mode="border", align_corners=False)[0]
    top, left = int(inside[0][0]), int(inside[1][0])
    result[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return result


def _coordinates(file: int, scaled: int, seen: int, offset: int, device: torch.device) -> Tensor:
    """Where the centres of a file's pixels lie in what the model saw, from -1 to 1 at its edges."""
    centres = (torch.arange(file, device=device) + 0.5) * (scaled / file) - offset
    return centres * (2 / seen) - 1
