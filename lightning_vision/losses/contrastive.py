"""What contrastive losses share: how alike rows are, among those of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from lightning_vision.losses.base import at_least_float32


def similarities(vectors: Tensor, temperature: float, counts: list[int]) -> tuple[Tensor, Tensor]:
    """Compare each row of this process with all rows.

    In float32 also under autocast: a cosine of three digits, divided by a small temperature, is wrong by tenths.

    Args:
        vectors: ``(B, D)``, not normalised; a row of zeros has no direction, and cosine 0 with all others.
        temperature: Above 0.
        counts: Rows of each process, from ``row_counts``; N together.

    Returns:
        Cosine over temperature ``(B, N)``, with the lowest finite number for a row with itself; and int64 ``(B,)``, the
        place of each row of this process among all.
    """
    if vectors.ndim != 2:
        raise ValueError(f"a contrastive loss compares vectors (B, D), got {tuple(vectors.shape)}")
    device = vectors.device
    with torch.autocast(device.type, enabled=False):
        rows = F.normalize(at_least_float32(vectors), dim=1, eps=1e-6)
        logits = rows @ gathered(rows, counts).T / temperature
    first = sum(counts[: distributed.get_rank()]) if len(counts) > 1 else 0
    places = torch.arange(first, first + len(rows), device=device)
    # Finite, so that a row that has nothing else to be compared with has a loss of 0 and not NaN.
    lowest = torch.finfo(logits.dtype).min
    return logits.scatter(1, places[:, None], lowest), places


def row_counts(rows: Tensor, gather: bool) -> list[int]:
    """The number of rows that each process has; without ``gather`` that of this process alone.

    All processes have to ask for it.
    """
    if not gather or not distributed.is_available() or not distributed.is_initialized():
        return [len(rows)]
    counts = torch.zeros(distributed.get_world_size(), dtype=torch.int64, device=rows.device)
    counts[distributed.get_rank()] = len(rows)
    distributed.all_reduce(counts)
    return [int(count) for count in counts.tolist()]


def gathered(rows: Tensor, counts: list[int]) -> Tensor:
    """Put the rows of all processes behind each other, in the order of the ranks, with gradients to each of them.

    Args:
        rows: ``(B, ...)`` of this process.
        counts: B of each process, from ``row_counts``.
    """
    if len(counts) == 1:
        return rows
    found: Tensor = _Gather.apply(rows, counts)
    return found


class _Gather(torch.autograd.Function):
    """Rows of all processes; backward, the gradients that all processes have for the rows of this one are added."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        # Collectives take equal sizes.
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient)
        return gradient.split(ctx.counts)[distributed.get_rank()], None
