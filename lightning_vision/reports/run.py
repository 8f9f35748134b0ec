"""The pictures, tables and the page of a run, from its folder and its model."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console

import lightning_vision
from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.scored_rows import Called
from lightning_vision.errors import listed
from lightning_vision.metrics.bootstrap import ENDS
from lightning_vision.module import VisionModule
from lightning_vision.reports.classes import balance_of, draw_classes
from lightning_vision.reports.curves import plot_curves
from lightning_vision.reports.page import Figure, Page, Section, write_page
from lightning_vision.reports.per_class import class_tables, write_per_class
from lightning_vision.reports.per_image import PerImageTable
from lightning_vision.reports.scored import Picture, Scored
from lightning_vision.reports.table import final_table
from lightning_vision.resolve import Plan
from lightning_vision.types import Split

CURVES = "plots/curves.png"
SEEN = "Over the epochs; the dotted line marks the epoch whose checkpoint was kept."
LIBRARIES = ("torch", "lightning", "torchvision", "timm", "transformers", "numpy")


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Args:
        action: ``fit`` or ``test``.
        config: The config of the run.
        index: All rows of its data.
        called: The name of the figures; None where nothing was scored.
        scored: How many rows were scored.
        checkpoint: The file of the model, or None where it was given in Python.
        tiled: Which figures are of tiles, in words.
    """

    action: Literal["fit", "test"]
    config: Mapping[str, Any]
    index: SampleIndex
    called: Called | None
    scored: int
    checkpoint: Path | None
    tiled: str = ""


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
        plot_curves(metrics, folder / CURVES, monitor, mode)


def report_figures(
    folder: Path,
    module: VisionModule,
    data: VisionDataModule,
    split: Split,
    called: str,
    metrics: Mapping[str, float],
    records: PerImageTable,
) -> list[Section]:
    """Draw the pictures of a scored split, write ``per_class.csv`` and print the figures of each output.

    Returns:
        The same, for ``report.html``.
    """
    plots = folder / "plots"
    heads = module.named_heads()
    several = len(heads) > 1
    tables = class_tables(module, called)
    if tables:
        write_per_class(tables, folder / "per_class.csv")
    sections = []
    if several:
        total = {k: v for k, v in metrics.items() if k.startswith(f"{called}/") and k.count("/") == 1}
        final_table(total, None, f"{called} split", Console())
        sections.append(Section("All outputs", [Figure(key.partition("/")[2], value) for key, value in total.items()]))
    for name, head in heads:
        pictures = head.task.draw(
            Scored(module, name, data, split, called, records, plots / name if several else plots)
        )
        prefix = f"{called}/{module.prefix(name)}"
        overall = {k: v for k, v in metrics.items() if k.startswith(prefix) and k.count("/") == prefix.count("/")}
        ends = {key: tuple(metrics.get(f"{key}/{end}") for end in ENDS) for key in overall}
        intervals = {key: (low, high) for key, (low, high) in ends.items() if low is not None and high is not None}
        title = f"{called} split, {name}" if several else f"{called} split"
        final_table(overall, head.task.per_class(head.results[called]), title, Console(), intervals)
        figures = [
            Figure(short := key.removeprefix(prefix), value, intervals.get(key), short in head.task.shown)
            for key, value in overall.items()
        ]
        # What is seen first stands first in the table, too.
        figures.sort(key=lambda found: (not found.first, found.name == "loss"))
        table = next((table for table in tables if table.output == name), None)
        sections.append(Section(f"Output: {name}" if several else "Figures", figures, table, pictures))
    return sections


def report_page(folder: Path, module: VisionModule, subject: Subject, sections: Sequence[Section]) -> None:
    """Write ``report.html``, and say where everything is."""
    what = "Training" if subject.action == "fit" else "Evaluation"
    decoders = dict.fromkeys(_home(head.decoder) for _, head in module.named_heads())
    name = subject.config["encoder"].get("family") or _home(module.encoder)
    place = Path(subject.index.origin)
    data = "/".join(place.parts[-2:]) if place.is_absolute() else subject.index.origin
    page = Page(
        kicker=what,
        title=f"{' + '.join([name, *decoders])} on {data}",
        subtitle=f"{datetime.now().astimezone():%d %B %Y, %H:%M %Z} · {folder}",
        facts=_facts(module, subject),
        sections=[*sections, *_training(folder, subject)],
        config=yaml.safe_dump(dict(subject.config), sort_keys=False, allow_unicode=True),
        versions=[
            ("lightning_vision", lightning_vision.__version__),
            ("Python", platform.python_version()),
            *((name, version(name)) for name in LIBRARIES),
            (platform.system(), platform.release()),
        ],
    )
    write_page(page, folder / "report.html")
    if sections:
        print(f"figures and pictures: {folder}, all on one page: {folder / 'report.html'}")


def _facts(module: VisionModule, subject: Subject) -> list[tuple[str, str]]:
    counts = subject.index.counts()
    total = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    geometry = module.geometry
    found = [("Data", subject.index.origin)]
    if subject.action == "fit":
        found.append(("Images", ", ".join(f"{_grouped(count)} {name}" for name, count in counts.items())))
    if subject.called:
        split = "all splits" if subject.called == "all" else f"the split {subject.called}"
        found.append(("Scored", f"{_grouped(subject.scored)} images of {split}"))
    if subject.tiled:
        found.append(("Tiles", subject.tiled))
    for name, head in module.named_heads():
        classes = head.task.target.class_names
        several = f", {name}" if len(module.names) > 1 else ""
        if classes:
            found.append((f"Task{several}", f"{head.task.name}, {len(classes)} classes: {listed(classes, 12)}"))
        else:
            found.append((f"Task{several}", head.task.name))
    return [
        *found,
        ("Images are brought to", f"{geometry.height} × {geometry.width} pixels, {geometry.num_channels} channels"),
        ("Parameters", f"{_grouped(total)}, of which {_grouped(trained)} trained"),
        ("Checkpoint", str(subject.checkpoint) if subject.checkpoint else ""),
    ]


def _training(folder: Path, subject: Subject) -> list[Section]:
    """The learning curves: of this run, or of the one that the checkpoint is from."""
    run = folder if subject.action == "fit" else subject.checkpoint and subject.checkpoint.absolute().parent.parent
    if not run or not (run / CURVES).is_file():
        return []
    return [Section("Training", pictures=[Picture(run / CURVES, "Learning curves", SEEN)])]


def _home(part: object) -> str:
    """The file that a part is in, which has the name of its option in a config."""
    return type(part).__module__.rpartition(".")[2]


def _grouped(count: int) -> str:
    return f"{count:,}".replace(",", "\u202f")
