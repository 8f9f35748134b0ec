"""Predictions as files: a table of them, and what a task writes beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lightning_vision.errors import DataError
from lightning_vision.inference.growing import GrowingArray, GrowingFile
from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.inference.prediction import Prediction
from lightning_vision.inference.table_file import TableFile

TABLE = "predictions.csv"


class Writer(ABC):
    """Writes predictions, and a table about them, which grows row by row (see ``TableFile``).

    Use it as a context manager: what grows has its final name when the block ends without an error, and ``.partial``
    behind it otherwise.

    Args:
        folder: Folder to write into; it is made.
        class_names: Names of the classes or labels, the position is the id.
        output: The format of the table, and what is there already.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def __init__(self, folder: Path, class_names: Sequence[str] | None = None, output: Output = PLAIN) -> None:
        if class_names is not None and not class_names:
            raise ValueError("class_names must not be empty")
        self.folder = Path(folder)
        self.class_names = tuple(class_names or ())
        self.output = output
        self.table = TableFile(self.folder / TABLE, self._columns, output)
        # Arrays that grow beside the table, a row an image.
        self.arrays: list[GrowingArray] = []

    @property
    def files(self) -> list[GrowingFile]:
        """All files that grow."""
        return [*(array.file for array in self.arrays), self.table.file]

    @abstractmethod
    def add(self, prediction: Prediction) -> None:
        """Write a prediction."""

    @abstractmethod
    def _columns(self) -> Mapping[str, type]:
        """Names and types of the table's columns: str, int or float."""

    def _array(self, name: str) -> GrowingArray:
        """Add an array that grows."""
        path = self.folder / name
        try:
            array = GrowingArray(path, self.output.kept(path), self.output.count)
        except BaseException:
            self.table.abandon()
            raise
        self.arrays.append(array)
        return array

    def close(self) -> None:
        """Give all files their final names; those of an earlier run are replaced. Does nothing the second time.

        What a table was made of stays, until all writers are closed and their blocks end.
        """
        try:
            for array in self.arrays:
                array.close()
        except DataError:
            self.table.abandon()
            raise
        self.table.close()

    def abandon(self) -> None:
        """Close the files but leave them under their partial names, unless they have no rows."""
        try:
            for array in self.arrays:
                array.abandon()
        finally:
            self.table.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            self.table.clear()
            return
        try:
            self.abandon()
        except DataError as second:
            # The first error is the cause (a full disk fails again on closing): it goes on, with a note.
            error.add_note(str(second))


def probability_texts(probabilities: NDArray[Any], count: int, path: str) -> list[str]:
    """The cells of the probabilities of one image, with six digits.

    Args:
        probabilities: ``(C,)``.
        count: C, the number of classes or labels.
        path: Path of the image, for messages.

    Raises:
        ValueError: The shape is wrong, or a probability is not finite.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape != (count,):
        raise ValueError(f"expected ({count},) probabilities, got {values.shape}: {path}")
    if not np.isfinite(values).all():
        raise ValueError(f"the probabilities are not finite: {path}")
    return [f"{value:.6g}" for value in values.tolist()]
