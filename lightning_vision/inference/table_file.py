"""A table that grows row by row as CSV, and may become Parquet when it is whole."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning_vision.inference.growing import GrowingFile
from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.inference.parquet import csv_to_parquet

Columns = Mapping[str, type]


class TableFile:
    """``NAME.csv.partial`` grows row by row, each flushed; ``close`` makes ``NAME.csv`` or ``NAME.parquet`` of it.

    A Parquet file has its directory at the end, so that half of one cannot be read or gone on with: it is made of the
    CSV, in groups of rows, when all are there. The CSV stays until ``clear``, for a run that goes on because something
    else could not be finished.

    Args:
        path: ``NAME.csv``.
        columns: Returns names and types (str, int, float) of the columns; asked when the first row comes, or the end.
        output: The format, and what is kept of an earlier file.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def __init__(self, path: Path, columns: Callable[[], Columns], output: Output = PLAIN) -> None:
        self.columns = columns
        self.format = output.table
        self.file = GrowingFile(path, output.kept(path))

    @property
    def started(self) -> bool:
        """Whether the names of the columns are written."""
        return bool(self.file.size)

    @property
    def path(self) -> Path:
        """The finished table."""
        return self.file.path.with_suffix(f".{self.format}")

    def add(self, row: Sequence[str]) -> None:
        """Write a row; an empty one writes the names of the columns alone.

        Raises:
            ValueError: The table is closed.
            DataError: The disk is full.
        """
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        if not self.started:
            lines.writerow(self.columns())
        if row:
            lines.writerow(row)
        # File names are bytes on Linux: those that are no UTF-8 are written as they are.
        self.file.add(text.getvalue().encode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """Give the table its final name; one of an earlier run is replaced. Does nothing the second time."""
        if self.file.closed:
            return
        self.add(())
        if self.format == "csv":
            self.file.close()
        else:
            csv_to_parquet(self.file.partial, self.path, self.columns())
            self.file.abandon(remove=False)

    def clear(self) -> None:
        """Remove what a closed table was made of."""
        self.file.abandon(remove=True)

    def abandon(self) -> None:
        """Close the file but leave it under its partial name, unless it has no rows."""
        self.file.abandon()
