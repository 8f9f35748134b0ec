"""Bringing feature maps to a size: cutting, extending, averaging."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional as F


def ceil_div(n: int, stride: int) -> int:
    """Return ``ceil(n / stride)`` of whole numbers, n not negative.

    Not ``-(-n // stride)``: in an exported graph, where n is known when it runs, ONNX divides towards zero.
    """
    return (n + stride - 1) // stride


def cut(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut what a map ``(B, C, H, W)`` has beyond ``size`` at its right and bottom."""
    if torch.compiler.is_exporting():
        # A slice would be of the smaller of both sizes, and its strides would tell which; an export is for all sizes.
        return x.narrow(-2, 0, size[0]).narrow(-1, 0, size[1]).clone(memory_format=torch.contiguous_format)
    return x[..., : size[0], : size[1]]


def fit_to_centre(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut a map ``(B, C, H, W)`` to ``size``, or extend it by repeating its border, evenly at both ends."""
    if torch.compiler.is_exporting():
        return _taken_from_centre(x, size)
    for dim in (-2, -1):
        extra = size[dim] - x.shape[dim]
        if extra < 0:
            x = x.narrow(dim, -extra // 2, size[dim])
        elif extra > 0:
            ends = (extra // 2, extra - extra // 2)
            x = F.pad(x, (*ends, 0, 0) if dim == -1 else (0, 0, *ends), mode="replicate")
    return x


def _taken_from_centre(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The same without a question about the size: an exported graph is one for all sizes."""
    for dim in (-2, -1):
        have, want = x.shape[dim], size[dim]
        if have is not want and not statically_known_true(have == want):
            start = torch.sym_max(have - want, 0) // 2 - torch.sym_max(want - have, 0) // 2
            x = x.index_select(dim, (torch.arange(want, device=x.device) + start).clamp(0, have - 1))
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
