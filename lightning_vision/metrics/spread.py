"""Some rows of a stream of batches, evenly over it, however long it is."""

from __future__ import annotations

import torch
from torch import Tensor


class Spread:
    """Keeps every n-th row, and doubles n when there are too many.

    Nothing is read back from a device.

    Args:
        most: Twice as many rows are never exceeded, and so many are kept of any stream that has as many.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._step, self._seen = 1, 0
        # A tuple of columns each batch; put behind each other when they are read, or are too many.
        self._parts: list[tuple[Tensor, ...]] = []
        self._kept = 0

    def add(self, *columns: Tensor) -> None:
        """Add a batch: columns of the same length, the same ones each time."""
        first = -self._seen % self._step
        self._seen += len(columns[0])
        # Copies: a view would hold the whole batch.
        self._parts.append(tuple(column[first :: self._step].detach().clone() for column in columns))
        self._kept += len(self._parts[-1][0])
        while self._kept > 2 * self.most:
            self._parts = [tuple(column[::2].clone() for column in self.columns)]
            self._kept = len(self._parts[0][0])
            self._step *= 2

    @property
    def columns(self) -> list[Tensor]:
        """What is kept; nothing where no batch was added."""
        if len(self._parts) > 1:
            self._parts = [tuple(torch.cat(column) for column in zip(*self._parts, strict=True))]
        return [column for part in self._parts for column in part]
