"""Predictions of open-set classification as a table."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_vision.inference.prediction import Prediction
from lightning_vision.inference.writers import Writer


class OpenSetWriter(Writer):
    """Writes ``path,label,confidence,threshold`` and ``p_<class>`` for each known class.

    The label is ``unknown`` where the confidence is below the threshold.

    Args:
        folder: Folder to write into; it is made.
        class_names: Names of the known classes.
        output: The format of the table, and what is there already.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def _columns(self) -> Mapping[str, type]:
        numbers = ("confidence", "threshold", *(f"p_{name}" for name in self.class_names))
        return {"path": str, "label": str} | dict.fromkeys(numbers, float)

    def add(self, prediction: Prediction) -> None:
        """Add the row of a prediction."""
        assert prediction.probabilities is not None
        figures = [prediction.score, prediction.threshold, *prediction.probabilities.tolist()]
        self.table.add([prediction.path, prediction.label or "", *(f"{value:.6g}" for value in figures)])
