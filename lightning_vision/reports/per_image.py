"""One row an image of a split, written while the split is scored; and which images are worth a look."""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_vision.data.ranks import gathered, gathered_by_first, rank_and_world
from lightning_vision.reports.files import cannot_write, whole_file

if TYPE_CHECKING:
    from lightning_vision.data.datamodule import VisionDataModule
    from lightning_vision.head import HeadOutput
    from lightning_vision.module import VisionModule
    from lightning_vision.tasks.base import Cells
    from lightning_vision.types import Batch

KEPT = 12  # of the worst images, and of those that are shown beside them


class PerImageTable:
    """``per_image.csv``: ``path``, and the columns of each task (of several outputs behind ``<output>/``).

    Rows go to a file without a name beside the table as they come, which is gone with the process: what is kept of an
    image in memory are two numbers, where its row is and which image it is. Numbers have six digits; those that are not
    defined are empty.

    Args:
        module: The model.
        data: Its data.
        out: The file of the table; its folder is made.

    Raises:
        DataError: The folder cannot be made or written.
    """

    def __init__(self, module: VisionModule, data: VisionDataModule, out: Path) -> None:
        self.module = module
        self.data = data
        self.out = Path(out)
        self._columns: list[str] = []
        self._rows: list[NDArray[np.int64]] = []
        self._ends: list[NDArray[np.int64]] = []
        self._size = 0
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            # Where the table itself has to have room: the system's own place for such files may be small.
            self._file = tempfile.TemporaryFile(dir=self.out.parent)  # noqa: SIM115  # closed by finish or close
        except OSError as error:
            raise cannot_write(self.out, error) from error
        self._worst = {name: Lowest(KEPT) for name in module.names}
        self._prominent = {name: Lowest(KEPT) for name in module.names}

    def add(self, batch: Batch, outputs: Mapping[str, HeadOutput]) -> None:
        """Note the images of a batch that has just been counted.

        Raises:
            DataError: The disk is full.
        """
        rows = batch["index"].cpu().numpy()
        columns: dict[str, list[Any]] = {"path": [self.data.index.image_path(row) for row in rows.tolist()]}
        for name, head in self.module.named_heads():
            found = head.task.per_image(head.test_scores, head, outputs[name], head.target(batch))
            prefix = self.module.prefix(name)
            columns |= {f"{prefix}{key}": _texts(cells) for key, cells in found.columns.items()}
            for lowest, values in ((self._worst, found.badness), (self._prominent, found.prominence)):
                if values is not None:
                    lowest[name].add(-values.double().cpu().numpy(), rows)
        self._columns = list(columns)
        self._write(rows, list(columns.values()))

    def _write(self, rows: NDArray[np.int64], columns: Sequence[Sequence[str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        lines = []
        for row in zip(*columns, strict=True):
            writer.writerow(row)
            lines.append(text.getvalue().encode("utf-8", "surrogateescape"))
            text.seek(0)
            text.truncate()
        self._rows.append(rows)
        self._ends.append(self._size + np.cumsum([len(line) for line in lines], dtype=np.int64))
        self._size = int(self._ends[-1][-1])
        try:
            self._file.writelines(lines)
        except OSError as error:
            raise cannot_write(self.out, error) from error

    def finish(self) -> None:
        """Write the table, in the order of the rows. All processes have to call it; the first one writes.

        Raises:
            DataError: The file cannot be written.
        """
        rank, world = rank_and_world()
        for lowest in (*self._worst.values(), *self._prominent.values()):
            lowest.gather()
        columns = next((part for part in gathered([self._columns]) if part), ["path"])
        header = io.StringIO(newline="")
        csv.writer(header, lineterminator="\n").writerow(columns)
        lines = None if world == 1 else gathered_by_first(self._lines())
        if rank == 0:
            with whole_file(self.out) as temporary, temporary.open("wb") as file:
                file.write(header.getvalue().encode("utf-8", "surrogateescape"))
                if lines is None:  # one process has them in their order already
                    self._file.seek(0)
                    shutil.copyfileobj(self._file, file)
                else:
                    file.writelines(line for _, line in sorted(lines))
        self.close()

    def _lines(self) -> list[tuple[int, bytes]]:
        """Row and line of every image of this process."""
        if not self._rows:
            return []
        rows, ends = np.concatenate(self._rows).tolist(), np.concatenate(self._ends).tolist()
        try:
            self._file.seek(0)
        except OSError as error:  # what was not written yet is written now
            raise cannot_write(self.out, error) from error
        return [(row, self._file.read(end - start)) for row, start, end in zip(rows, [0, *ends], ends, strict=False)]

    def close(self) -> None:
        """Give up the temporary file."""
        self._file.close()

    def worst(self, name: str) -> NDArray[np.int64]:
        """The rows of the worst images of an output, the worst first."""
        return self._worst[name].rows

    def prominent(self, name: str) -> NDArray[np.int64]:
        """The rows of the images that are shown beside them, in their order."""
        return self._prominent[name].rows


class Lowest:
    """The rows with the lowest values of a pass, in their order; of equal ones the first rows.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.values, self.rows = np.empty(0), np.empty(0, np.int64)

    def add(self, values: NDArray[np.float64], rows: NDArray[np.int64]) -> None:
        """Add values ``(B,)`` of rows ``(B,)``; NaN counts for nothing."""
        known = ~np.isnan(values)
        values = np.concatenate([self.values, values[known]])
        rows = np.concatenate([self.rows, rows[known]])
        order = np.lexsort((rows, values))[: self.count]
        self.values, self.rows = values[order], rows[order]

    def gather(self) -> None:
        """Take those of all processes, which all have to call it."""
        parts = gathered([(self.values, self.rows)])
        self.values, self.rows = np.empty(0), np.empty(0, np.int64)
        for part in parts:
            self.add(*part)


def _texts(cells: Cells) -> list[str]:
    """Numbers as text, those that are not defined as nothing."""
    if isinstance(cells, list):
        return cells
    return ["" if value != value else f"{value:.6g}" for value in cells.tolist()]
