"""A finished CSV as Parquet, in groups of rows: memory stays bounded however many there are."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from lightning_vision.reports.files import whole_file

ROWS = 20_000  # of a group


def csv_to_parquet(source: Path, target: Path, columns: Mapping[str, type]) -> None:
    r"""Write a CSV as Parquet.

    Text stays text (bytes of a file name that are no UTF-8 stand there as ``\xff``), int becomes int64, float
    float32; an empty cell of a number is null.

    Args:
        source: A CSV in UTF-8 whose first row names the columns.
        target: The file to write; one of this name is replaced.
        columns: Names and types of the columns.

    Raises:
        DataError: The folder cannot be written, or the disk is full.
    """
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float32()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    readers = [_readers[kind] for kind in columns.values()]
    with (
        source.open(newline="", encoding="utf-8", errors="surrogateescape") as file,
        whole_file(target) as temporary,
        ParquetWriter(temporary, schema) as writer,
    ):
        rows = csv.reader(file)
        next(rows)
        while group := list(islice(rows, ROWS)):
            cells = [list(map(read, column)) for read, column in zip(readers, zip(*group, strict=True), strict=True)]
            arrays = [pyarrow.array(column, kind) for column, kind in zip(cells, schema.types, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def _text(cell: str) -> str:
    if cell.isascii():
        return cell
    return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _number(kind: type) -> Callable[[str], Any]:
    return lambda cell: kind(cell) if cell else None


_readers: dict[type, Callable[[str], Any]] = {str: _text, int: _number(int), float: _number(float)}
