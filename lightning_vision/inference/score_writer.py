"""Predictions of anomaly detection as a table."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_vision.inference.prediction import Prediction
from lightning_vision.inference.writers import Writer


class AnomalyWriter(Writer):
    """Writes ``path,label,score,threshold``.

    Label and threshold are empty where no threshold was learned.

    Args:
        folder: Folder to write into; it is made.
        class_names: Names of what is normal and what is not.
        output: The format of the table, and what is there already.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def _columns(self) -> Mapping[str, type]:
        return {"path": str, "label": str, "score": float, "threshold": float}

    def add(self, prediction: Prediction) -> None:
        """Add the row of a prediction."""
        assert prediction.score is not None
        threshold = "" if prediction.threshold is None else f"{prediction.threshold:.6g}"
        self.table.add([prediction.path, prediction.label or "", f"{prediction.score:.6g}", threshold])
