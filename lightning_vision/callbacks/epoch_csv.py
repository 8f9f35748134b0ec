"""metrics.csv: one row an epoch, however many calls it was logged in."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_vision.reports.files import whole_file


class EpochCSV(Logger):
    """Write ``metrics.csv`` with one row an epoch; an interrupted and resumed run goes on in the same table.

    Rows of an earlier run in the folder are kept up to the epoch at which this one begins, and no others: a new run
    begins a new table.

    The file is rewritten to a temporary name and renamed, so that a reader never sees half a table.

    Args:
        save_dir: Folder of ``metrics.csv``.
    """

    injected: ClassVar[tuple[str, ...]] = ()

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._rows: dict[int, dict[str, str]] | None = None

    @property
    def name(self) -> str:
        """No folder of its own below the run folder."""
        return ""

    @property
    def version(self) -> str:
        """No version folder: the run folder is unique."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder of the table."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the run folder holds config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Merge figures into the row of their epoch. Test figures have no epoch and go to metrics.json instead."""
        if "epoch" not in metrics or any(key.startswith("test/") for key in metrics):
            return
        epoch = int(metrics["epoch"]) + 1  # counted from 1, as the progress lines are
        rows = self._rows_before(epoch)
        row = rows.setdefault(epoch, {"epoch": str(epoch)})
        row |= {key: repr(float(value)) for key, value in metrics.items() if key != "epoch"}
        if step is not None:
            row["step"] = str(step)

    @rank_zero_only
    def save(self) -> None:
        """Write the table."""
        if not self._rows:
            return
        columns = ["epoch", "step", *sorted({k for row in self._rows.values() for k in row} - {"epoch", "step"})]
        with whole_file(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._rows[epoch] for epoch in sorted(self._rows))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left at the end, whatever the end."""
        self.save()

    def _rows_before(self, epoch: int) -> dict[int, dict[str, str]]:
        """The rows so far; at the first call those that are in the file, of epochs before this one."""
        if self._rows is None:
            self._rows = {}
            if self.path.is_file():
                with self.path.open(newline="", encoding="utf-8") as file:
                    for row in csv.DictReader(file):
                        if int(row["epoch"]) < epoch:
                            self._rows[int(row["epoch"])] = {k: v for k, v in row.items() if k and v}
        return self._rows
