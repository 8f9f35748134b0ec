"""Reading CSV and TSV files into packed columns: a million rows without a Python object a row."""

from __future__ import annotations

import csv
import gc
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from lightning_vision.data.index import PackedStrings
from lightning_vision.data.sources.missing import no_such_path
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.overrides import override

TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
_DELIMITERS = (",", "\t", ";", "|")


class Delimited:
    """A CSV or TSV file with a header row. UTF-8 with or without byte order mark, or UTF-16 with one.

    The delimiter is the tab in ``.tsv`` and ``.tab`` files, else the one of comma, tab, semicolon and bar that divides
    the header into the most columns. Cells may be quoted, and hold delimiters and line ends then.

    Args:
        path: The file.

    Raises:
        ConfigError: No such file.
        DataError: Empty, or no text, or the header is missing or names a column twice.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        if not os.path.isfile(self.path):
            if not os.path.isdir(self.path):
                raise no_such_path("data.path", path, "a CSV or TSV file", lambda p: p.lower().endswith(TABLE_SUFFIXES))
            raise ConfigError(
                f"{self.path} is a folder",
                given=override("data.path", path),
                expected="a CSV or TSV file",
                override=f"data=folder {override('data.path', path)}",
            )
        with open(self.path, "rb") as file:
            start = file.read(2)
        self.encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        self.delimiter = self._find_delimiter()
        self.header = [cell.strip() for cell in next(self._records(), [])]
        if not any(self.header):
            raise DataError(f"{self.path}: the file is empty", expected="a first row with the names of the columns")
        twice = sorted({name for name in self.header if name and self.header.count(name) > 1})
        if twice:
            raise DataError(f"{self.path}: the header names a column twice", given=", ".join(twice))

    def _find_delimiter(self) -> str:
        if self.path.lower().endswith((".tsv", ".tab")):
            return "\t"
        columns: dict[str, int] = {}
        for delimiter in _DELIMITERS:
            self.delimiter = delimiter
            try:
                columns[delimiter] = len(next(self._records(), []))
            except DataError:
                if delimiter == _DELIMITERS[-1] and not columns:
                    raise
        return max(columns, key=lambda d: (columns[d], -_DELIMITERS.index(d)))

    def _records(self) -> Iterator[list[str]]:
        """All records, the header first; blank lines are empty records."""
        with open(self.path, encoding=self.encoding, newline="") as file:
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            try:
                yield from reader
            except csv.Error as error:
                raise DataError(
                    f"{self.path}: line {reader.line_num} cannot be read: {error}",
                    expected="quotes closed, and doubled within quoted cells",
                ) from error
            except UnicodeError as error:
                raise DataError(
                    f"{self.path}: after line {reader.line_num} the text is not {self.encoding.removesuffix('-sig')}",
                    given=str(error),
                    expected="a file saved as UTF-8",
                ) from error

    def head(self, count: int) -> list[list[str]]:
        """The first ``count`` rows that are not blank, without the header."""
        rows: list[list[str]] = []
        records = self._records()
        next(records, None)
        for record in records:
            if len(rows) == count:
                break
            if record:
                rows.append(record)
        return rows

    def columns(self, names: Sequence[str]) -> tuple[list[PackedStrings], npt.NDArray[np.int64], list[str]]:
        """Read columns in one pass; cells are stripped of surrounding white space.

        Returns:
            The columns; int64 ``(N,)`` the number of each row, as a spreadsheet counts (the header is row 1); and
            what is wrong with rows that are left out: another number of cells than the header has.
        """
        at = [self.header.index(name) for name in names]
        data = [bytearray() for _ in names]
        offsets = [array("q", [0]) for _ in names]
        rows = array("q")
        ragged: list[str] = []
        width = len(self.header)
        with _no_collector():
            records = self._records()
            next(records, None)
            for number, record in enumerate(records, start=2):
                if not record:
                    continue
                if len(record) != width:
                    ragged.append(f"row {number} has {len(record)} cells")
                    continue
                rows.append(number)
                for column, cell in enumerate(at):
                    data[column] += record[cell].strip().encode("utf-8", "surrogateescape")
                    offsets[column].append(len(data[column]))
        packed = [
            PackedStrings(np.frombuffer(bytes(d), np.uint8), np.frombuffer(o.tobytes(), np.int64))
            for d, o in zip(data, offsets, strict=True)
        ]
        return packed, np.frombuffer(rows.tobytes(), np.int64), ragged


@contextmanager
def _no_collector() -> Iterator[None]:
    """The cyclic garbage collector takes two thirds of the time of a csv.reader, and finds nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
