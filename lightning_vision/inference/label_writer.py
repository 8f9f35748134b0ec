"""Predicted classes as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.inference.prediction import Prediction
from lightning_vision.inference.writers import Writer, probability_texts


class LabelWriter(Writer):
    """Writes ``path,label,probability`` and ``p_<class>`` for each class.

    If the first row comes with its truth, a column ``truth`` follows ``probability``.

    Args:
        folder: Folder to write into; it is made.
        class_names: Names of the classes, the position is the class id.
        output: The format of the table, and what is there already.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], output: Output = PLAIN) -> None:
        super().__init__(folder, class_names, output)
        self._with_truth = False

    def _columns(self) -> Mapping[str, type]:
        truth = {"truth": str} if self._with_truth else {}
        numbers = {f"p_{name}": float for name in self.class_names}
        return {"path": str, "label": str, "probability": float, **truth, **numbers}

    def add(self, prediction: Prediction) -> None:
        """Add the row of a prediction."""
        assert prediction.probabilities is not None
        self.write(prediction.path, prediction.probabilities)

    def write(self, path: str, probabilities: NDArray[Any], truth: str | None = None) -> None:
        """Add a row.

        Args:
            path: Path of the image, written as given.
            probabilities: ``(C,)``, 0 to 1; written with six digits.
            truth: Name of the true class, or None.

        Raises:
            ValueError: The shape is wrong, a probability is not finite, or a truth comes after a first row without.
            DataError: The disk is full or the file cannot be written.
        """
        texts = probability_texts(probabilities, len(self.class_names), path)
        if not self.table.started:
            self._with_truth = truth is not None
        elif truth is not None and not self._with_truth:
            raise ValueError(f"the first row had no truth, so the table has no column for it: {path}")
        best = int(np.argmax(probabilities))
        column = [truth or ""] if self._with_truth else []
        self.table.add([str(path), self.class_names[best], texts[best], *column, *texts])
