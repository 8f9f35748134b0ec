"""Scoring a split, as the fit and the test do it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_vision.data.datamodule import VisionDataModule
    from lightning_vision.data.scored_rows import Called
    from lightning_vision.module import VisionModule
    from lightning_vision.reports.notebook import Plots
    from lightning_vision.reports.per_image import PerImageTable
    from lightning_vision.types import Split


@dataclass(repr=False)
class Result:
    """What a fit or a test returns. As the last line of a notebook's cell it shows its figures.

    Args:
        metrics: Final figures under flat keys such as ``test/mean_iou``.
        folder: The run folder.
        checkpoint: The best checkpoint.
        module: The model with the weights of that checkpoint.
    """

    metrics: dict[str, float]
    folder: Path
    checkpoint: Path
    module: VisionModule

    @property
    def plots(self) -> Plots:
        """The pictures of the run folder by name: ``result.plots["curves"]``."""
        from lightning_vision.reports.notebook import Plots

        return Plots(self.folder / "plots")

    def __repr__(self) -> str:
        figures = {key: value for key, value in self.metrics.items() if key.count("/") < 2}
        shown = "".join(f"{key} {value:.4f}, " for key, value in figures.items())
        return f"Result({shown}folder {self.folder})"

    def _repr_html_(self) -> str:
        from lightning_vision.reports.notebook import figures_html

        return figures_html(self.metrics, self.module)


@contextmanager
def hushed(quiet: bool) -> Iterator[None]:
    """Print nothing, if that is wanted; warnings go to stderr, and are seen."""
    if not quiet:
        yield
        return
    with redirect_stdout(StringIO()):
        yield


def evaluate(
    trainer: Any, module: VisionModule, data: VisionDataModule, folder: Path, split: Split, called: Called | None = None
) -> tuple[dict[str, float], PerImageTable]:
    """Score a split, and write ``per_image.csv`` into the run folder.

    Args:
        trainer: Lightning's.
        module: The model.
        data: Its data.
        folder: The run folder.
        split: The rows that are scored.
        called: What stands before the figures, where it is not the split.

    Returns:
        Flat figures, those of the classes too, and the table, which knows the worst images.
    """
    from lightning_vision.interruption import interruptible
    from lightning_vision.metrics.bootstrap import ENDS
    from lightning_vision.reports.per_image import PerImageTable

    called = called or split
    if called != "test":
        trainer.loggers = []  # these figures are of no epoch: they would become one more row of metrics.csv
    data.scored, module.scored_as = split, called
    module.per_image = records = PerImageTable(module, data, folder / "per_image.csv")
    try:
        with interruptible(trainer):
            rows = trainer.test(module, data, verbose=False)
        records.finish()
    finally:
        records.close()
        module.per_image = None
    figures = {key: float(value) for key, value in rows[0].items()}
    for name, head in module.named_heads():
        prefix = f"{called}/{module.prefix(name)}"
        computed = head.results[called]
        for figure, values in head.task.per_class(computed).items():
            figures |= {f"{prefix}{figure}/{class_name}": value for class_name, value in values.items()}
        for figure, ends in head.task.intervals(computed).items():
            if all(map(math.isfinite, ends)):
                figures |= {f"{prefix}{figure}/{end}": value for end, value in zip(ENDS, ends, strict=True)}
    return figures, records
