"""Reading CSV and TSV files into packed columns: a million rows without a Python object a row."""

from __future__ import annotations

import csv
import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import numpy as np
import numpy.typing as npt

from lightning_vision.data.index import PackedStrings, Packer
from lightning_vision.data.label_cells import is_set
from lightning_vision.data.sources.fast_csv import LARGE, fast_columns
from lightning_vision.data.sources.missing import is_saved_dataset, no_such_path
from lightning_vision.data.sources.tabular import TABLE_SUFFIXES, Table, all_image_names
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.overrides import override
from lightning_vision.types import TargetKind

_DELIMITERS = (",", "\t", ";", "|")
_BLOCK = 1 << 11  # records that are held at once: they fit into a processor's cache
_FIRST_ROWS = 20  # tell what a column holds
_LONGEST_CELL = 2**31 - 1


class Delimited(Table):
    """A CSV or TSV file with a header row. UTF-8 with or without byte order mark, or UTF-16 with one.

    The delimiter is the tab in ``.tsv`` and ``.tab`` files, else the one of comma, tab, semicolon and bar that divides
    the header into the most columns. Cells may be quoted, and hold delimiters and line ends then. Rows are numbered as
    a spreadsheet counts them: the header is row 1, blank lines count.

    Args:
        path: The file.

    Raises:
        ConfigError: No such file.
        DataError: Empty, or no text, or the header is missing or names a column twice.
    """

    def __init__(self, path: str) -> None:
        self.path = existing_file(path)
        with open(self.path, "rb") as file:
            start = file.read(3)
        # Plain UTF-8 is decoded faster than with a look for the mark.
        self.encoding = "utf-8-sig" if start == b"\xef\xbb\xbf" else "utf-8"
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            self.encoding = "utf-16"
        self.delimiter = self._find_delimiter()
        self.header = [cell.strip() for cell in self._first()]
        if not any(self.header):
            raise DataError(f"{self.path}: the file is empty", expected="a first row with the names of the columns")
        if any("\0" in cell for cell in self.header):
            raise self._no_text("the header")
        twice = sorted({name for name in self.header if name and self.header.count(name) > 1})
        if twice:
            raise DataError(f"{self.path}: the header names a column twice", given=", ".join(twice))
        self._head: list[list[str]] | None = None

    def _find_delimiter(self) -> str:
        if self.path.lower().endswith((".tsv", ".tab")):
            return "\t"
        columns: dict[str, int] = {}
        for delimiter in _DELIMITERS:
            self.delimiter = delimiter
            try:
                columns[delimiter] = len(self._first())
            except DataError:
                if delimiter == _DELIMITERS[-1] and not columns:
                    raise
        return max(columns, key=lambda d: (columns[d], -_DELIMITERS.index(d)))

    @contextmanager
    def _records(self) -> Iterator[Iterator[list[str]]]:
        """All records, the header first; blank lines are empty records."""
        with open(self.path, encoding=self.encoding, newline="") as file, _cells_of_any_length():
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            try:
                yield reader
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

    def _first(self) -> list[str]:
        with self._records() as records:
            return next(records, [])

    def kind(self, name: str) -> TargetKind | None:
        """Masks, if all filled cells of the first rows are names of image files."""
        first = self._first_cells(name)
        if first is None:
            return None
        return "mask" if all_image_names(first) else "label"

    def holds_sets(self, name: str, separator: str) -> bool:
        """See ``Table.holds_sets``."""
        return any(is_set(cell, separator) for cell in self._first_cells(name) or ())

    def _first_cells(self, name: str) -> list[str] | None:
        """The cells of a column in the first rows; None if there are no rows."""
        if self._head is None:
            with self._records() as records:
                self._head = list(islice((r for r in islice(records, 1, None) if r), _FIRST_ROWS))
        at = self.header.index(name)
        return [r[at].strip() for r in self._head if len(r) > at] if self._head else None

    def columns(self, names: Sequence[str]) -> tuple[list[PackedStrings], npt.NDArray[np.int64], list[str]]:
        """Read columns in one pass; see ``Table.columns``."""
        at = [self.header.index(name) for name in names]
        found = self._fast(at)
        if found is not None:
            return found
        columns, row, ragged = self._slow(at)
        for name, column in zip(names, columns, strict=True):
            zeros = np.flatnonzero(column.data == 0)
            if len(zeros):
                i = int(np.searchsorted(column.offsets, zeros[0], "right")) - 1
                raise self._no_text(f"row {row[i]}, column {name}")
        return columns, row, ragged

    def _fast(self, at: Sequence[int]) -> tuple[list[PackedStrings], npt.NDArray[np.int64], list[str]] | None:
        if self.encoding == "utf-16" or os.path.getsize(self.path) < LARGE:
            return None
        columns = fast_columns(self.path, self.delimiter, len(self.header), at)
        return None if columns is None else (columns, np.arange(2, len(columns[0]) + 2, dtype=np.int64), [])

    def _slow(self, at: Sequence[int]) -> tuple[list[PackedStrings], npt.NDArray[np.int64], list[str]]:
        packers = [Packer(os.path.getsize(self.path)) for _ in at]
        numbers = [np.zeros(0, np.int64)]
        ragged: list[str] = []
        width, first = len(self.header), 2
        with _no_collector(), self._records() as records:
            next(records, None)
            while block := list(islice(records, _BLOCK)):
                rows = np.arange(first, first + len(block), dtype=np.int64)
                first += len(block)
                columns = _transposed(block)
                if len(columns) != width:
                    wrong = [(n, len(r)) for n, r in zip(rows.tolist(), block, strict=True) if len(r) not in (0, width)]
                    ragged += [f"row {number} has {cells} cells" for number, cells in wrong]
                    rows = rows[[len(record) == width for record in block]]
                    columns = _transposed([record for record in block if len(record) == width]) or [()] * width
                numbers.append(rows)
                for packer, cell in zip(packers, at, strict=True):
                    packer.add(columns[cell], strip=True)
        return [packer.packed() for packer in packers], np.concatenate(numbers), ragged

    def _no_text(self, where: str) -> DataError:
        return DataError(
            f"{self.path}: {where} holds a NUL byte, so the file is no text or is damaged",
            expected="a file saved as UTF-8 (UTF-16 needs a byte order mark)",
        )


def existing_file(path: str) -> str:
    """Return the absolute path of a table.

    Raises:
        ConfigError: There is no such file, or it is a folder.
    """
    full = os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(full):
        return full
    if not os.path.isdir(full):
        wanted = "a CSV, TSV or Parquet file"
        raise no_such_path("data.path", path, wanted, lambda p: p.lower().endswith(TABLE_SUFFIXES))
    raise ConfigError(
        f"{full} is a folder",
        given=override("data.path", path),
        expected="a CSV, TSV or Parquet file",
        override=f"data={'huggingface' if is_saved_dataset(full) else 'folder'} {override('data.path', path)}",
    )


def _transposed(records: list[list[str]]) -> list[tuple[str, ...]]:
    """Columns of records; none if the records differ in length."""
    try:
        return list(zip(*records, strict=True))
    except ValueError:
        return []


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


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """The csv module refuses cells of more than 128 KiB, though the columns that are wanted may hold none."""
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(limit)
