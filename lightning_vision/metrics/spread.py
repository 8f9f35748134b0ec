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
        self._columns: list[Tensor] = []

    def add(self, *columns: Tensor) -> None:
        """Add a batch: columns of the same length, the same ones each time."""
        first = -self._seen % self._step
        self._seen += len(columns[0])
        kept = [column[first :: self._step].detach() for column in columns]
        self._columns = [torch.cat(pair) for pair in zip(self._columns, kept, strict=True)] if self._columns else kept
        while self._columns and len(self._columns[0]) > 2 * self.most:
            self._columns = [column[::2].clone() for column in self._columns]
            self._step *= 2

    @property
    def columns(self) -> list[Tensor]:
        """What is kept; nothing where no batch was added."""
        return self._columns
