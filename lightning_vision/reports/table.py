"""The final figures as tables: drawn in a terminal, plain text everywhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

MAX_CLASSES = 40  # rows of the table of classes; of more, the worst are shown
_NONE = "-"
HEADS = {"iou": "IoU", "f1": "F1", "auroc": "AUROC"}
Rows = list[list[str]]
Table = tuple[str, list[str], Rows, str]
Intervals = Mapping[str, tuple[float, float]]


def final_table(
    metrics: Mapping[str, float],
    per_class: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "results",
    console: Console | None = None,
    intervals: Intervals | None = None,
) -> None:
    """Print the figures of a run.

    Args:
        metrics: Figure by its key, such as ``{"test/mean_iou": 0.52}``.
        per_class: Value by class by figure, such as ``{"iou": {"sky": 0.9, "road": 0.8}}``; NaN where a class does not
            occur, printed as ``-``. Beyond 40 classes the worst by the first figure are shown.
        title: Heading of the figures.
        console: Where to print; None is standard output.
        intervals: Lower and upper end of the 95 % interval of some of the figures, by key.
    """
    show_tables(tables(metrics, per_class, title, intervals), console)


def show_tables(parts: Sequence[Table], console: Console | None = None) -> None:
    """Print tables, each a heading, the heads of its columns, its rows and a note.

    The first column stands at the left, all others at the right.
    """
    from rich.console import Console

    console = console or Console()
    if not console.is_terminal:
        text = plain(parts)
        # An output that cannot encode a class name shows a question mark instead of ending the run.
        encoding = console.encoding or "utf-8"
        console.file.write(text.encode(encoding, errors="replace").decode(encoding) + "\n")
        return
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    for heading, head, rows, note in parts:
        table = RichTable(
            title=Text(heading, style="bold"), box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left"
        )
        table.show_header = any(head)
        table.caption = Text(note) if note else None
        # Names give way on a narrow terminal, figures never do.
        for i, name in enumerate(head):
            table.add_column(Text(name), justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)


def plain_tables(
    metrics: Mapping[str, float],
    per_class: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "results",
    intervals: Intervals | None = None,
) -> str:
    """The same tables as text of aligned columns, without colours or frames and without cutting any name."""
    return plain(tables(metrics, per_class, title, intervals))


def plain(parts: Sequence[Table]) -> str:
    """Tables as text of aligned columns."""
    blocks = []
    for heading, head, rows, note in parts:
        grid = [head, *rows] if any(head) else rows
        widths = [max((len(row[i]) for row in grid), default=0) for i in range(len(head))]
        lines = [
            "  ".join(
                c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in grid
        ]
        blocks.append("\n".join([heading, *(f"  {line}" for line in lines), *([f"  {note}"] if note else [])]))
    return "\n\n".join(blocks)


def tables(
    metrics: Mapping[str, float],
    per_class: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "results",
    intervals: Intervals | None = None,
) -> list[Table]:
    """Heading, column heads, rows and a note of each table."""
    head, rows = ["figure", "value"], [[_line(key), figure(value)] for key, value in metrics.items()]
    if intervals:
        head.append("95 % interval")
        ends = [intervals.get(key) for key in metrics]
        rows = [
            [*row, "" if e is None else f"{figure(e[0])} to {figure(e[1])}"] for row, e in zip(rows, ends, strict=True)
        ]
    tables: list[Table] = [(_line(title), head, rows, "")]
    if per_class and any(per_class.values()):
        names = list(dict.fromkeys(name for values in per_class.values() for name in values))
        shown, note = _worst(names, next(iter(per_class.values())))
        head = ["class", *(HEADS.get(key, key) for key in per_class)]
        rows = [[_line(n), *(figure(values.get(n, math.nan)) for values in per_class.values())] for n in shown]
        tables.append(("per class", head, rows, note))
    return tables


def _worst(names: Sequence[str], values: Mapping[str, float]) -> tuple[Sequence[str], str]:
    if len(names) <= MAX_CLASSES:
        return names, ""
    known = [n for n in names if not math.isnan(values.get(n, math.nan))]
    shown = sorted(known, key=lambda n: values[n])[:MAX_CLASSES]
    return shown, f"the worst {len(shown)} of {len(names)} classes"


def figure(value: float) -> str:
    """Four digits after the point, whole numbers as such, ``-`` for NaN; very small and large ones with an exponent."""
    if math.isnan(value):
        return _NONE
    if isinstance(value, int):
        return str(value)
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.3g}"
    return f"{value:.4f}"


def _line(text: str) -> str:
    """A name on one line."""
    return " ".join(text.split()) or repr(text)
