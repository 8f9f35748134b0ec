"""The rows of a table while a source works on them: leaving out what is incomplete, and naming it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lightning_vision.data.index import PackedStrings
from lightning_vision.data.sources.problems import Problems
from lightning_vision.data.sources.tabular import Table
from lightning_vision.data.splits import split_id, unknown_split
from lightning_vision.errors import DataError

DROPPED = "preprocessing.missing_value_strategy=drop_row"


@dataclass
class Rows:
    """Some rows of a table.

    Args:
        table: Where they are from.
        cells: The columns that were read, by name.
        number: int64 ``(N,)``, the number of each row in the table.
        name: What tells a row apart wherever the data lie; empty until it is known.
        split: uint8 ``(N,)``, if the table gives the split.
    """

    table: Table
    cells: dict[str, PackedStrings]
    number: npt.NDArray[np.int64]
    name: PackedStrings
    split: npt.NDArray[np.uint8] | None = None

    def take(self, keep: npt.NDArray[np.bool_]) -> Rows:
        """Return the rows for which ``keep`` ``(N,)`` is true."""
        if keep.all():
            return self
        at = np.flatnonzero(keep)
        return replace(
            self,
            cells={name: column.take(at) for name, column in self.cells.items()},
            number=self.number[at],
            name=self.name.take(at) if len(self.name) else self.name,
            split=None if self.split is None else self.split[at],
        )

    def places(self, chosen: npt.NDArray[np.bool_]) -> str:
        """Name the rows for which ``chosen`` ``(N,)`` is true."""
        return self.table.places(self.number[np.flatnonzero(chosen)].tolist())

    def complete(self, names: Sequence[str], drop: bool, problems: Problems, override: Sequence[str] = ()) -> Rows:
        """Return the rows without an empty cell in these columns; the others are errors, or, with ``drop``, notes."""
        keep = np.ones(len(self.number), np.bool_)
        for name in names:
            empty = self.cells[name].empty
            if not empty.any():
                continue
            keep &= ~empty
            message = f"{self.table.path}: {int(empty.sum())} cells of column {name} are empty"
            if drop:
                problems.note(f"{message}; their rows are left out ({DROPPED}): {self.places(empty)}")
            else:
                expected = "a value in every row"
                problems.error(DataError(message, given=self.places(empty), expected=expected, override=override))
        return self.take(keep)

    def with_splits(self, name: str, problems: Problems) -> Rows:
        """Return the rows whose split is known, with it; any other is an error."""
        column = self.cells[name]
        first: dict[str, int] = {}
        codes = np.fromiter((first.setdefault(value, len(first)) for value in column), np.int64, len(column))
        ids = [split_id(value) for value in first]
        for code, (value, part) in enumerate(zip(first, ids, strict=True)):
            if part is None:
                row = int(self.number[int(np.argmax(codes == code))])
                problems.error(unknown_split(value, f"{self.table.path}: {self.table.places([row])}"))
        split = np.array([255 if part is None else part for part in ids] or [0], np.uint8)[codes]
        return replace(self, split=split).take(split != 255)
