"""From the size that the model saw back to the size of each file."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.data.placement import CROP_FRACTION, Size, centred, scaled_size


def restore_size(logits: Tensor, size: Size, resize_method: str, crop_fraction: float = CROP_FRACTION) -> Tensor:
    """Bring the logits ``(C, h, w)`` of one image to the size of its file, ``(C, H, W)``.

    The way back of the preprocessing, bilinear where the scale changed: a border is cut off, and what a crop left out,
    so that nothing was predicted for it, is NaN.
    """
    seen = (logits.shape[-2], logits.shape[-1])
    scaled = scaled_size(size, seen, resize_method, crop_fraction)
    logits = logits.float()
    if scaled == seen:
        return F.interpolate(logits.unsqueeze(0), size, mode="bilinear")[0]
    result = logits.new_full((logits.shape[0], *size), float("nan"))
    if scaled == size:
        source, place = [], []
        for have, want in zip(seen, size, strict=True):
            common = min(have, want)
            source.append(slice((have - common) // 2, (have - common) // 2 + common))
            place.append(slice((want - common) // 2, (want - common) // 2 + common))
        result[:, place[0], place[1]] = logits[:, source[0], source[1]]
        return result
    rows, columns = (_coordinates(*sides, logits.device) for sides in zip(size, scaled, seen, strict=True))
    inside = [(axis.abs() < 1).nonzero().flatten() for axis in (rows, columns)]
    y, x = torch.meshgrid(rows[inside[0]], columns[inside[1]], indexing="ij")
    grid = torch.stack((x, y), -1).unsqueeze(0)
    part = F.grid_sample(logits.unsqueeze(0), grid, padding_mode="border", align_corners=False)[0]
    top, left = int(inside[0][0]), int(inside[1][0])
    result[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return result


def _coordinates(file: int, scaled: int, seen: int, device: torch.device) -> Tensor:
    """Where the centres of a file's pixels lie in what the model saw, from -1 to 1 at its edges."""
    centres = (torch.arange(file, device=device) + 0.5) * (scaled / file) - centred(scaled, seen)
    return centres * (2 / seen) - 1
