"""Some samples of a batch, taken out and put back: both without waiting for a device, and fast on a processor."""

from __future__ import annotations

from torch import Tensor


def taken(batch: Tensor, rows: Tensor) -> Tensor:
    """Copy rows, int64 ``(n,)`` on the CPU, out of a tensor ``(B, ...)``."""
    return batch.index_select(0, rows.to(batch.device, non_blocking=True))


def put(batch: Tensor, rows: Tensor, values: Tensor) -> None:
    """Write values ``(n, ...)`` over rows, int64 ``(n,)`` on the CPU, of a tensor ``(B, ...)``."""
    if batch.device.type == "cpu":
        # One after the other: that moves blocks of memory, where writing by index goes from number to number and takes
        # six times as long.
        for row, value in zip(rows.tolist(), values, strict=True):
            batch[row] = value
    else:
        batch[rows.to(batch.device, non_blocking=True)] = values
