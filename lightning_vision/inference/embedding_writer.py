"""Embeddings as one array, which grows row by row, and a table that says which row is which image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_vision.inference.prediction import Prediction
from lightning_vision.inference.writers import Writer
from lightning_vision.reports.files import cannot_write

ARRAY = "embeddings.npy"
_HEADER = 128  # bytes in front of the numbers: room for any shape, and what their alignment asks for


class EmbeddingWriter(Writer):
    """Writes ``embeddings.npy``, float32 ``(N, D)``, and ``predictions.csv``: ``path,row``.

    One vector at a time is in memory. Both files have ``.partial`` behind their names until all rows are there; a
    partial array says that it has no rows. Use it as a context manager, as the other writers.

    Args:
        folder: Folder to write into; it is made.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.array = self.folder / ARRAY
        self.partial_array = self.folder / f"{ARRAY}.partial"
        self._shape = (0, 0)
        try:
            self._numbers = self.partial_array.open("wb")
            self._numbers.write(_header((0, 0)))
        except OSError as error:
            super().abandon()
            raise cannot_write(self.array, error) from error

    def _header(self) -> list[str]:
        return ["path", "row"]

    def add(self, prediction: Prediction) -> None:
        """Add the vector of a prediction, and its row.

        Raises:
            ValueError: The vector has another length than those before, or is not finite.
            DataError: The disk is full or a file cannot be written.
        """
        assert prediction.embedding is not None
        vector = prediction.embedding.astype("<f4", copy=False)
        count, length = self._shape
        if vector.ndim != 1 or (count and len(vector) != length):
            raise ValueError(f"expected a vector of {length} numbers, got {vector.shape}: {prediction.path}")
        if not np.isfinite(vector).all():
            raise ValueError(f"the embedding is not finite: {prediction.path}")
        try:
            self._numbers.write(vector.tobytes())
            self._numbers.flush()
        except OSError as error:
            raise cannot_write(self.array, error) from error
        self._shape = (count + 1, len(vector))
        self._write_row([prediction.path, str(count)])

    def close(self) -> None:
        """Give both files their final names; those of an earlier run are replaced. Does nothing the second time."""
        if not self._numbers.closed:
            try:
                self._numbers.seek(0)
                self._numbers.write(_header(self._shape))
                self._numbers.close()
                self.partial_array.replace(self.array)
            except OSError as error:
                super().abandon()
                raise cannot_write(self.array, error) from error
        super().close()

    def abandon(self) -> None:
        """Close the files but leave them under their partial names, unless they have no rows."""
        try:
            self._numbers.close()
            if not self._shape[0]:
                self.partial_array.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.array, error) from error
        finally:
            super().abandon()


def _header(shape: tuple[int, int]) -> bytes:
    """The first bytes of a file of float32 in numpy's format 1.0, as many for every shape."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    magic = b"\x93NUMPY\x01\x00"
    size = _HEADER - len(magic) - 2
    return magic + size.to_bytes(2, "little") + text.ljust(size - 1).encode("ascii") + b"\n"
