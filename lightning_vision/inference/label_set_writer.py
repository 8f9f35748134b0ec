"""Predicted sets of labels as a table."""

from __future__ import annotations

import numpy as np

from lightning_vision.inference.prediction import Prediction
from lightning_vision.inference.writers import Writer

SEPARATOR = "|"


class LabelSetWriter(Writer):
    """Writes ``predictions.csv``: ``path``, ``labels`` joined by ``|`` (may be empty) and ``p_<label>`` for each label.

    Use it as a context manager, as the other writers.

    Args:
        folder: Folder to write into; it is made.
        class_names: Names of the labels, in the order of their ids.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def _header(self) -> list[str]:
        return ["path", "labels", *(f"p_{name}" for name in self.class_names)]

    def add(self, prediction: Prediction) -> None:
        """Add the row of a prediction.

        Raises:
            ValueError: A probability is not finite.
            DataError: The disk is full or the file cannot be written.
        """
        assert prediction.labels is not None
        assert prediction.probabilities is not None
        if not np.isfinite(prediction.probabilities).all():
            raise ValueError(f"the probabilities are not finite: {prediction.path}")
        texts = [f"{value:.6g}" for value in prediction.probabilities.tolist()]
        self._write_row([prediction.path, SEPARATOR.join(prediction.labels), *texts])
