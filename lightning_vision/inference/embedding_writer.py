"""Embeddings as one array, which grows row by row, and a table that says which row is which image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.inference.prediction import Prediction
from lightning_vision.inference.writers import Writer

ARRAY = "embeddings.npy"


class EmbeddingWriter(Writer):
    """Writes ``embeddings.npy``, float32 ``(N, D)``, and a table ``path,row``. One vector at a time is in memory.

    Args:
        folder: Folder to write into; it is made.
        output: The format of the table, and what is there already.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def __init__(self, folder: Path, output: Output = PLAIN) -> None:
        super().__init__(folder, output=output)
        self.vectors = self._array(ARRAY)

    def _columns(self) -> Mapping[str, type]:
        return {"path": str, "row": int}

    def add(self, prediction: Prediction) -> None:
        """Add the vector of a prediction, and its row.

        Raises:
            ValueError: The vector has another length than those before, or is not finite.
            DataError: The disk is full or a file cannot be written.
        """
        assert prediction.embedding is not None
        row = self.vectors.shape[0]
        self.vectors.add(prediction.embedding, prediction.path)
        self.table.add([prediction.path, str(row)])
