"""Tables of positions that were learned on one grid, used on another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def resample_table(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a table over a grid ``(..., H, W)`` to another grid, bicubic and without aliasing.

    Two small matrix products, since torch's operation has no deterministic gradient on CUDA.
    """
    if table.shape[-2:] == size:
        return table
    rows, columns = (_weights(n, m, table.device).to(table.dtype) for n, m in zip(table.shape[-2:], size, strict=True))
    return rows @ table @ columns.mT


def _weights(n: int, m: int, device: torch.device) -> Tensor:
    """Return the matrix ``(m, n)`` that interpolates m values among n: each column is an impulse's answer."""
    return F.interpolate(torch.eye(n, device=device)[None, None], (m, n), mode="bicubic", antialias=True)[0, 0]
