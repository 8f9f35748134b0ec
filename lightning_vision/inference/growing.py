"""Files that grow under a partial name, and can be cut back to what was noted of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_vision.errors import ConfigError
from lightning_vision.reports.files import cannot_write

PARTIAL = ".partial"
HEADER = 128  # bytes in front of the numbers: room for any shape, and what their alignment asks for


class GrowingFile:
    """A file that grows at its end, with ``.partial`` behind its name until it is whole.

    What is added is flushed at once: another process reads it, and a killed one leaves it behind.

    Args:
        path: Its final name; the folder is made.
        keep: Bytes of the partial file to go on behind. What follows them, such as half a row, is cut off; 0 begins
            anew.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
        ConfigError: There are fewer bytes than are to be kept.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + PARTIAL)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if keep:
                self._find(keep)
            self._file = self.partial.open("r+b" if keep else "wb")
            if keep:
                self._file.truncate(keep)
                self._file.seek(keep)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.size = keep

    def _find(self, keep: int) -> None:
        # Killed after this file got its name, and before all had theirs.
        if not self.partial.exists() and self.path.is_file() and self.path.stat().st_size == keep:
            self.path.replace(self.partial)
        size = self.partial.stat().st_size if self.partial.is_file() else 0
        if size < keep:
            raise ConfigError(
                "What an interrupted prediction left behind is no longer whole.",
                given=f"{self.partial}: {size} of {keep} bytes",
                expected="another folder, or this one without what is in it",
                override="output_dir=FOLDER",
            )

    @property
    def closed(self) -> bool:
        """Whether nothing can be added any more."""
        return self._file.closed

    def add(self, data: bytes) -> None:
        """Write at the end.

        Raises:
            ValueError: The file is closed.
            DataError: The disk is full.
        """
        if self.closed:
            raise ValueError(f"the writer of {self.path} is closed")
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.size += len(data)

    def close(self, start: bytes = b"") -> None:
        """Give the file its final name; one of an earlier run is replaced. Does nothing the second time.

        Args:
            start: Written over its first bytes.
        """
        if self.closed:
            return
        try:
            if start:
                self._file.seek(0)
                self._file.write(start)
            self._file.close()
            self.partial.replace(self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def abandon(self, remove: bool | None = None) -> None:
        """Close the file but leave it under its partial name.

        Args:
            remove: Remove it; None = if nothing was added.
        """
        try:
            self._file.close()
            if remove or (remove is None and not self.size):
                self.partial.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error


class GrowingArray:
    """A ``.npy`` file of float32 ``(N, D)`` that grows row by row; one row is in memory.

    A partial array says that it has no rows.

    Args:
        path: Its final name.
        keep: Bytes to go on behind, see ``GrowingFile``; without rows among them the file begins anew.
        count: Rows among them.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def __init__(self, path: Path, keep: int = 0, count: int = 0) -> None:
        keep = keep if count else 0  # a file without rows is not left behind
        self.file = GrowingFile(path, keep)
        self.shape = (count, (keep - HEADER) // (4 * count) if count else 0)
        if not keep:
            try:
                self.file.add(header((0, 0)))
            except BaseException:
                self.file.abandon()
                raise

    def add(self, vector: NDArray[np.float32], path: str) -> None:
        """Add a row.

        Args:
            vector: ``(D,)``, as many numbers as in the rows before.
            path: What it belongs to, for messages.

        Raises:
            ValueError: The length is another one, or a number is not finite.
            DataError: The disk is full.
        """
        count, length = self.shape
        if vector.ndim != 1 or (count and len(vector) != length):
            raise ValueError(f"expected a vector of {length} numbers, got {vector.shape}: {path}")
        if not np.isfinite(vector).all():
            raise ValueError(f"not finite: {path}")
        self.file.add(vector.astype("<f4", copy=False).tobytes())
        self.shape = (count + 1, len(vector))

    def close(self) -> None:
        """Note the number of rows in the file, and give it its final name. Does nothing the second time."""
        self.file.close(header(self.shape))

    def abandon(self) -> None:
        """Close the file but leave it under its partial name, unless it has no rows."""
        self.file.abandon(remove=not self.shape[0])


def header(shape: tuple[int, int]) -> bytes:
    """The first bytes of a file of float32 in numpy's format 1.0, as many for every shape."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    magic = b"\x93NUMPY\x01\x00"
    size = HEADER - len(magic) - 2
    return magic + size.to_bytes(2, "little") + text.ljust(size - 1).encode("ascii") + b"\n"
