"""The figures of each class as a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_vision.module import VisionModule
from lightning_vision.reports.files import whole_file


@dataclass(frozen=True)
class ClassTable:
    """The classes of an output.

    Args:
        output: Its name.
        counted: What ``support`` counts, in a word.
        support: Targets of each class, by name.
        figures: Value by class by figure; NaN where it is not defined.
    """

    output: str
    counted: str
    support: Mapping[str, float]
    figures: Mapping[str, Mapping[str, float]]


def class_tables(module: VisionModule, called: str) -> list[ClassTable]:
    """The table of each output that has figures of classes, from what its counter came to."""
    tables = []
    for name, head in module.named_heads():
        task, computed = head.task, head.results[called]
        figures = {key: values for key, values in task.per_class(computed).items() if key != task.counted}
        if any(figures.values()):
            tables.append(ClassTable(name, task.counted, task.support(computed), figures))
    return tables


def write_per_class(tables: Iterable[ClassTable], out: Path) -> None:
    """Write ``per_class.csv``: ``class``, ``support`` and its figures; of several outputs behind ``output``.

    Numbers have six digits; those that are not defined are empty, as are figures that an output does not have.

    Raises:
        DataError: The file cannot be written.
    """
    tables = list(tables)
    names = list(dict.fromkeys(figure for table in tables for figure in table.figures))
    several = ["output"] if len(tables) > 1 else []
    with whole_file(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*several, "class", "support", *names])
        for table in tables:
            for class_name, count in table.support.items():
                cells = [table.figures.get(figure, {}).get(class_name, math.nan) for figure in names]
                output = [table.output] if several else []
                writer.writerow([*output, class_name, f"{count:.0f}", *map(_text, cells)])


def _text(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""
