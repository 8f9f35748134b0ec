"""What a notebook shows of a run: its pictures by name, and its figures as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from lightning_vision.metrics.bootstrap import ENDS
from lightning_vision.reports.table import tables

if TYPE_CHECKING:
    from lightning_vision.module import VisionModule


class Plots(Mapping[str, Image.Image]):
    """The pictures of a folder by their names without the ending, read when they are asked for.

    Args:
        folder: A folder of PNG files; those of a run with several outputs lie in a folder each: ``mask/confusion``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> Image.Image:
        file = self.folder / f"{name}.png"
        if not file.is_file():
            raise KeyError(f"{name}: there is {', '.join(self) or 'no picture'}")
        with Image.open(file) as picture:
            picture.load()
            return picture

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(p.relative_to(self.folder).with_suffix("").as_posix() for p in self.folder.rglob("*.png")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Plots({', '.join(self)})"


def figures_html(metrics: Mapping[str, float], module: VisionModule) -> str:
    """Return the final figures of a run, under flat keys, as HTML tables: all of them, then those of each class.

    Args:
        metrics: Figure by its key: ``test/mean_iou``, ``test/iou/CLASS``, ``test/mean_iou/ci95_low``.
        module: The model, which knows its outputs and which figures have one value a class.
    """
    page, left = "", dict(metrics)
    ends = {key: tuple(left.pop(f"{key}/{end}", None) for end in ENDS) for key in metrics}
    intervals = {key: (low, high) for key, (low, high) in ends.items() if low is not None and high is not None}
    for split in dict.fromkeys(key.partition("/")[0] for key in metrics if "/" in key):
        for name, head in module.named_heads():
            prefix = f"{split}/{module.prefix(name)}"
            starts = {figure: f"{prefix}{figure}/" for figure in head.task.class_figures}
            per_class = {
                figure: {key.removeprefix(start): left.pop(key) for key in list(left) if key.startswith(start)}
                for figure, start in starts.items()
            }
            for _, (first, *columns), rows, note in tables({}, per_class)[1:]:
                several = f" of {name}" if len(module.named_heads()) > 1 else ""
                page += _html([f"{first}{several}", *columns], rows, note)
    return "".join(_html(heads, rows, note) for _, heads, rows, note in tables(left, intervals=intervals)) + page


def _html(head: list[str], rows: list[list[str]], note: str) -> str:
    cells = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>\n" for row in rows)
    below = f"<p>{escape(note)}</p>" if note else ""
    return f"<table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n{below}"
