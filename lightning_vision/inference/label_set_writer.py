"""Predicted sets of labels as a table."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_vision.inference.prediction import Prediction
from lightning_vision.inference.writers import Writer, probability_texts

SEPARATOR = "|"


class LabelSetWriter(Writer):
    """Writes ``path``, ``labels`` joined by ``|`` (may be empty) and ``p_<label>`` for each label.

    Args:
        folder: Folder to write into; it is made.
        class_names: Names of the labels, in the order of their ids.
        output: The format of the table, and what is there already.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def _columns(self) -> Mapping[str, type]:
        return {"path": str, "labels": str} | {f"p_{name}": float for name in self.class_names}

    def add(self, prediction: Prediction) -> None:
        """Add the row of a prediction.

        Raises:
            ValueError: The shape is wrong, or a probability is not finite.
            DataError: The disk is full or the file cannot be written.
        """
        assert prediction.labels is not None
        assert prediction.probabilities is not None
        texts = probability_texts(prediction.probabilities, len(self.class_names), prediction.path)
        self.table.add([prediction.path, SEPARATOR.join(prediction.labels), *texts])
