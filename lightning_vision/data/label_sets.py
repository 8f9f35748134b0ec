"""Sets of labels in bits: a million rows of a hundred labels take 13 MB, and as much again where some are unknown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from lightning_vision.types import UNKNOWN

YES, NO = 1, 0
_BLOCK = 1 << 14  # rows that are unpacked at once


class LabelSets:
    """The labels that each row has, has not, or may have.

    Args:
        yes: uint8 ``(N, ceil(C / 8))``, the bits of ``np.packbits`` along the labels: 1 = the row has the label.
        num_labels: C.
        unknown: The same for cells of which nobody knows, whose bit in ``yes`` is 0; None = there are none.
    """

    __slots__ = ("num_labels", "unknown", "yes")

    def __init__(
        self, yes: npt.NDArray[np.uint8], num_labels: int, unknown: npt.NDArray[np.uint8] | None = None
    ) -> None:
        for name, bits in (("yes", yes), ("unknown", yes if unknown is None else unknown)):
            if bits.dtype != np.uint8 or bits.shape != (len(yes), _width(num_labels)):
                raise ValueError(f"{name} is {bits.dtype} {bits.shape}, no bits of {num_labels} labels")
        self.yes = yes
        self.num_labels = num_labels
        self.unknown = None if unknown is None or not unknown.any() else unknown

    @classmethod
    def from_blocks(cls, blocks: Iterable[npt.NDArray[np.uint8]], num_labels: int) -> LabelSets:
        """Pack blocks of rows, each uint8 ``(n, C)`` of 1 (yes), 0 (no) and 255 (unknown)."""
        yes, unknown = [np.zeros((0, _width(num_labels)), np.uint8)], [np.zeros((0, _width(num_labels)), np.uint8)]
        for cells in blocks:
            yes.append(np.packbits(cells == YES, axis=1))
            unknown.append(np.packbits(cells == UNKNOWN, axis=1))
        return cls(np.concatenate(yes), num_labels, np.concatenate(unknown))

    @classmethod
    def from_columns(
        cls, columns: Iterable[tuple[int, npt.NDArray[np.uint8]]], num_rows: int, num_labels: int
    ) -> LabelSets:
        """Pack columns one by one, each a label's id and uint8 ``(N,)`` of 1, 0 and 255.

        A label without a column is unknown in every row.
        """
        yes = np.zeros((num_rows, _width(num_labels)), np.uint8)
        unknown = np.repeat(np.packbits(np.ones((1, num_labels), np.uint8), axis=1), num_rows, axis=0)
        for label, cells in columns:
            byte, bit = label >> 3, np.uint8(128 >> (label & 7))
            yes[cells == YES, byte] |= bit
            unknown[cells != UNKNOWN, byte] &= ~bit
        return cls(yes, num_labels, unknown)

    def __len__(self) -> int:
        return len(self.yes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelSets):
            return NotImplemented
        if self.num_labels != other.num_labels or (self.unknown is None) != (other.unknown is None):
            return False
        same = self.unknown is None or other.unknown is None or np.array_equal(self.unknown, other.unknown)
        return same and np.array_equal(self.yes, other.yes)

    __hash__ = None  # type: ignore[assignment]  # compared by content, and the content is large

    def __repr__(self) -> str:
        return f"LabelSets({len(self)} rows, {self.num_labels} labels, {self.nbytes} bytes)"

    @property
    def nbytes(self) -> int:
        """Memory of the bits, bytes."""
        return int(self.yes.nbytes + (0 if self.unknown is None else self.unknown.nbytes))

    def take(self, rows: npt.ArrayLike) -> LabelSets:
        """Return the sets of ``rows`` (int array, any order, repeats allowed)."""
        rows = np.asarray(rows, np.int64)
        return LabelSets(self.yes[rows], self.num_labels, None if self.unknown is None else self.unknown[rows])

    def rows(self, rows: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Unpack ``rows`` (int array ``(n,)``): uint8 ``(n, C)`` of 1 (yes), 0 (no) and 255 (unknown)."""
        rows = np.asarray(rows, np.int64)
        cells = np.unpackbits(self.yes[rows], axis=1, count=self.num_labels)
        if self.unknown is not None:
            cells[np.unpackbits(self.unknown[rows], axis=1, count=self.num_labels) == 1] = UNKNOWN
        return cells

    def blocks(self, rows: npt.NDArray[np.int64] | None = None) -> Iterator[npt.NDArray[np.uint8]]:
        """Unpack all rows, or these, some thousand at once."""
        rows = np.arange(len(self)) if rows is None else rows
        for start in range(0, len(rows), _BLOCK):
            yield self.rows(rows[start : start + _BLOCK])

    def counts(self, rows: npt.NDArray[np.int64] | None = None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Count, among all rows or these, those that have each label and those of which it is unknown.

        Returns:
            int64 ``(C,)`` each.
        """
        yes, unknown = np.zeros((2, self.num_labels), np.int64)
        for cells in self.blocks(rows):
            yes += (cells == YES).sum(axis=0)
            unknown += (cells == UNKNOWN).sum(axis=0)
        return yes, unknown

    def key(self, row: int) -> bytes:
        """What two rows with the same labels have in common."""
        unknown = None if self.unknown is None else self.unknown[row]
        return self.yes[row].tobytes() + (b"" if unknown is None or not unknown.any() else unknown.tobytes())


def _width(num_labels: int) -> int:
    return -(-num_labels // 8)
