"""Bringing feature maps to a size: cutting, extending, averaging."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def fit_to_centre(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut a map ``(B, C, H, W)`` to ``size``, or extend it by repeating its border, evenly at both ends."""
    for dim in (-2, -1):
        extra = size[dim] - x.shape[dim]
        if extra < 0:
            x = x.narrow(dim, -extra // 2, size[dim])
        elif extra > 0:
            ends = (extra // 2, extra - extra // 2)
            x = F.pad(x, (*ends, 0, 0) if dim == -1 else (0, 0, *ends), mode="replicate")
    return x


def average_to_grid(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Average a map over a grid, as adaptive average pooling does.

    Two small matrix products, since torch's operation has no deterministic gradient on CUDA and does not export to ONNX
    when the grid does not divide the map.
    """
    rows, columns = (_averages(n, m, x.device, x.dtype) for n, m in zip(x.shape[-2:], size, strict=True))
    return rows @ x @ columns.mT


def _averages(n: int, m: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the matrix ``(m, n)`` whose row i averages cells ``floor(i n / m)`` to ``ceil((i + 1) n / m)``."""
    cell, row = torch.arange(n, device=device), torch.arange(m, device=device)[:, None]
    inside = (cell >= row * n // m) & (cell < ((row + 1) * n + m - 1) // m)
    return (inside / inside.sum(1, keepdim=True)).to(dtype)
