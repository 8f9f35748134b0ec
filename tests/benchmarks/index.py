"""What the index of a large table costs: memory, what a forked worker copies of it, and the time to parse the file.

A table of a million rows, each with a path of 37 characters and one of 1000 labels. Memory is held against 1.4 times
the bytes of the paths and 4 bytes a label. A forked worker reads every path; what it copies by that is held against
2 MB, which is noise. Parsing a CSV file into columns is held against reading it and counting its lines, once by the
csv module and once by pyarrow where it is installed. CPU time.

    python tests/benchmarks/index.py [number of rows]
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import re
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _table import Figure, cpu_seconds, measure

from lightning_vision.data.class_names import encode_labels
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.sources import delimited
from lightning_vision.data.sources.delimited import Delimited

COLUMNS = ("image", "label")
NOISE = 2.0  # MB
MEMORY, SLOW, FAST = 1.4, 12.0, 3.0


def write_table(path: Path, rows: int) -> Path:
    """Write the table; every path has 37 characters."""
    with path.open("w", encoding="utf-8") as file:
        file.write("image,label\n")
        file.writelines(f"images/train/{i % 977:07d}/photo_{i:07d}.jpg,class_{i % 1000}\n" for i in range(rows))
    return path


def build(table: Path) -> SampleIndex:
    """Read the table into an index, without asking for its files."""
    (image, label), _, _ = Delimited(str(table)).columns(COLUMNS)
    ids, _ = encode_labels(label, str, None, None, _refuse)
    return SampleIndex(image, np.zeros(len(image), np.uint8), label=ids)


def _refuse(error: Exception) -> None:
    raise error


def retained_megabytes(table: Path) -> float:
    """Memory that stays allocated for an index."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    index = build(table)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del index
    return (after - before) / 1e6


def allowed_megabytes(table: Path, rows: int) -> float:
    """1.4 times the bytes of all paths, and 4 bytes a label."""
    index = build(table)
    return (MEMORY * index.image.data.nbytes + 4 * rows) / 1e6


def copied_megabytes(index: SampleIndex) -> float:
    """Pages that become a forked worker's own while it reads every path."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    worker = context.Process(target=_read_all, args=(index, send))
    worker.start()
    megabytes: float = receive.recv()
    worker.join()
    return megabytes


def _read_all(index: SampleIndex, send: multiprocessing.connection.Connection) -> None:
    before = _private_megabytes()
    for i in range(len(index)):
        index.image_path(i)
    send.send(max(_private_megabytes() - before, 0.0))


def _private_megabytes() -> float:
    text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return sum(int(kilobytes) for kilobytes in re.findall(r"^Private_Dirty: +(\d+) kB", text, re.MULTILINE)) / 1e3


def parse_seconds(table: Path, fast: bool) -> Callable[[], float]:
    """CPU seconds of parsing both columns, through pyarrow or the csv module."""

    def once() -> float:
        large, delimited.LARGE = delimited.LARGE, 0 if fast else sys.maxsize
        try:
            return cpu_seconds(lambda: Delimited(str(table)).columns(COLUMNS))
        finally:
            delimited.LARGE = large

    return once


def floor_seconds(table: Path) -> float:
    """CPU seconds of reading the file and counting its lines."""
    return cpu_seconds(lambda: table.read_bytes().count(b"\n"))


def main(rows: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        table = write_table(Path(folder) / "table.csv", rows)
        index = build(table)
        floor = lambda: floor_seconds(table)  # noqa: E731
        figures = [
            Figure(
                "memory of an index", lambda: retained_megabytes(table), lambda: allowed_megabytes(table, rows), 1, "MB"
            ),
            Figure("copied by a forked worker", lambda: copied_megabytes(index), lambda: NOISE, 1, "MB"),
            Figure("CSV into columns, csv module", parse_seconds(table, fast=False), floor, SLOW),
        ]
        if importlib.util.find_spec("pyarrow"):
            figures.append(Figure("CSV into columns, pyarrow", parse_seconds(table, fast=True), floor, FAST))
        return 0 if measure(figures, repeats=5) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
