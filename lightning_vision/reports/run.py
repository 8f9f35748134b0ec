"""The pictures and tables of a run, from its folder and its model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console

from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.module import VisionModule
from lightning_vision.reports.classes import balance_of, draw_classes
from lightning_vision.reports.curves import plot_curves
from lightning_vision.reports.scored import Scored
from lightning_vision.reports.table import final_table
from lightning_vision.resolve import Plan
from lightning_vision.types import Split


def report_data(folder: Path, plan: Plan) -> None:
    """Draw the class balance of each output's target."""
    index = plan.index
    for name, output in plan.outputs.items():
        labels = index.main_labels if output.column is None else index.further_targets[output.column]
        balance = balance_of(index, labels, plan.preprocessing.num_processes)
        if balance is not None:
            plots = folder / "plots" if len(plan.outputs) == 1 else folder / "plots" / name
            draw_classes(balance, plots / "classes.png")


def report_pictures(folder: Path, monitor: str, mode: Literal["min", "max"]) -> None:
    """Draw the learning curves, if an epoch was finished; ``mode``: whether the monitor should be min or max."""
    metrics = folder / "metrics.csv"
    if metrics.is_file():
        plot_curves(metrics, folder / "plots" / "curves.png", monitor, mode)


def report_figures(
    folder: Path, module: VisionModule, data: VisionDataModule, split: Split, metrics: dict[str, float]
) -> None:
    """Draw the pictures of a scored split and print its figures, for each output."""
    plots = folder / "plots"
    heads = module.named_heads()
    total = {k: v for k, v in metrics.items() if k.startswith(f"{split}/") and k.count("/") == 1}
    if len(heads) > 1:
        final_table(total, None, f"{split} split", Console())
    for name, head in heads:
        single = len(heads) == 1
        head.task.draw(Scored(module, name, data, split, plots if single else plots / name))
        prefix = f"{split}/{module.prefix(name)}"
        overall = {k: v for k, v in metrics.items() if k.startswith(prefix) and k.count("/") == prefix.count("/")}
        title = f"{split} split" if single else f"{split} split, {name}"
        ends = {key: (metrics.get(f"{key}/ci95_low"), metrics.get(f"{key}/ci95_high")) for key in overall}
        intervals = {key: (low, high) for key, (low, high) in ends.items() if low is not None and high is not None}
        final_table(overall, head.task.per_class(head.results[split]), title, Console(), intervals)
    print(f"figures and pictures: {folder}")
