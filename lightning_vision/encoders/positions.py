"""Tables of positions that were learned on one grid, used on another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def resample_table(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a table over a grid ``(..., H, W)`` to another grid, bicubic and without aliasing.

    Two small matrix products, since torch's operation has no deterministic gradient on CUDA.
    """
    exporting = torch.compiler.is_exporting()
    if not exporting and table.shape[-2:] == size:
        return table
    weights = weights_of if exporting else _weights
    rows, columns = (weights(n, m, table.device).to(table.dtype) for n, m in zip(table.shape[-2:], size, strict=True))
    return rows @ table @ columns.mT


def weights_of(n: int, m: int, device: torch.device, cubic: bool = True) -> Tensor:
    """Return the matrix ``(m, n)`` of torch's antialiased bicubic, or bilinear, resampling of n values to m.

    Written out, because torch's operation does not export with sizes that are known only when the model runs.
    """
    scale = torch.scalar_tensor(n, dtype=torch.float64, device=device) / m
    wide = scale.clamp(min=1)
    centre = (torch.arange(m, device=device, dtype=torch.float64)[:, None] + 0.5) * scale
    cell = torch.arange(n, device=device, dtype=torch.float64)
    reach = (2 if cubic else 1) * wide
    inside = (cell >= (centre - reach + 0.5).floor()) & (cell < (centre + reach + 0.5).floor())
    at = ((cell + 0.5 - centre) / wide).abs()
    if cubic:  # Keys' kernel with a = -0.5
        near, far = (1.5 * at - 2.5) * at * at + 1, ((-0.5 * at + 2.5) * at - 4) * at + 2
        weight = torch.where(at < 1, near, torch.where(at < 2, far, torch.zeros_like(at)))
    else:
        weight = (1 - at).clamp(min=0)
    weight = weight * inside
    return (weight / weight.sum(1, keepdim=True)).float()


def _weights(n: int, m: int, device: torch.device) -> Tensor:
    """Return the matrix ``(m, n)`` that interpolates m values among n: each column is an impulse's answer."""
    return F.interpolate(torch.eye(n, device=device)[None, None], (m, n), mode="bicubic", antialias=True)[0, 0]
