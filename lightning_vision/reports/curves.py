"""Loss, metrics and learning rate of a run over its epochs, from the CSV that the logger wrote."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_vision.errors import DataError
from lightning_vision.reports.files import save_figure
from lightning_vision.reports.text import FAMILY, drawable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRAIN, _VAL, _BEST = "#0072B2", "#D55E00", "#444444"
_CYCLE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C564B")
_MAX_LINES = len(_CYCLE)


class Best(NamedTuple):
    """Where the monitored figure was best."""

    epoch: float
    value: float


@dataclass
class Series:
    """One column over the epochs; ``y`` is NaN where the value was not finite."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]


@dataclass
class _Column:
    epochs: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def read_metrics(metrics_csv: Path) -> dict[str, Series]:
    """Read a sparse CSV of ``epoch``, ``step`` and figures.

    A figure that is there once an epoch lies at the number of its epoch, as checkpoint names count them. One that is
    logged more often (or without an epoch, as the learning rate is) is spread by its step from half an epoch before
    that number to half an epoch after it.

    Raises:
        DataError: The file does not exist or is no CSV of numbers.
    """
    metrics_csv = Path(metrics_csv)
    try:
        with metrics_csv.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns: dict[str, _Column] = {}
        for row in rows:
            epoch, step = _number(row.get("epoch")), _number(row.get("step"))
            for name, text in row.items():
                if name in ("epoch", "step") or not text:
                    continue
                column = columns.setdefault(name, _Column())
                column.epochs.append(epoch)
                column.steps.append(step)
                column.values.append(float(text))
    except (OSError, ValueError, csv.Error, TypeError) as error:
        raise DataError(
            f"cannot read the metrics of the run: {metrics_csv}", given=error, expected="a CSV of epoch, step, figures"
        ) from error
    ends = _epoch_ends(columns)
    return {name: _series(column, ends) for name, column in columns.items()}


def _number(text: str | None) -> float:
    return float(text) if text else math.nan


def _epoch_ends(columns: dict[str, _Column]) -> dict[float, float]:
    """The last step of each epoch."""
    ends: dict[float, float] = {}
    for column in columns.values():
        for epoch, step in zip(column.epochs, column.steps, strict=True):
            if math.isfinite(epoch) and math.isfinite(step):
                ends[epoch] = max(step, ends.get(epoch, step))
    return dict(sorted(ends.items()))


def _series(column: _Column, ends: dict[float, float]) -> Series:
    epochs, steps, values = (np.array(v, dtype=np.float64) for v in (column.epochs, column.steps, column.values))
    values[~np.isfinite(values)] = np.nan
    # A resumed run may have logged an epoch twice: the later row counts.
    by_epoch = dict(zip(epochs.tolist(), range(len(values)), strict=True))
    per_step = len({*zip(epochs.tolist(), steps.tolist(), strict=True)}) > len(by_epoch)
    if np.isfinite(epochs).all() and not (per_step and ends):
        order = sorted(by_epoch)
        return Series(np.array(order), values[[by_epoch[e] for e in order]])
    if not ends or not np.isfinite(steps).all():
        return Series(np.arange(len(values), dtype=np.float64), values)
    by_step = dict(zip(steps.tolist(), range(len(values)), strict=True))
    order = sorted(by_step)
    # Edges of the epochs on the step axis. The step before the first epoch is -1: its last step is counted from 0.
    edges_x = [min(ends) - 0.5, *(e + 0.5 for e in ends)]
    edges_step = [-1.0 if min(ends) == 0 else _extrapolated_start(ends), *ends.values()]
    return Series(np.interp(order, edges_step, edges_x), values[[by_step[s] for s in order]])


def _extrapolated_start(ends: dict[float, float]) -> float:
    """The step before the first logged epoch of a run that was resumed: epochs are about equally long."""
    (first, first_end), (last, last_end) = next(iter(ends.items())), list(ends.items())[-1]
    length = (last_end - first_end) / (last - first) if last > first else (first_end + 1) / (first + 1)
    return first_end - length


def find_best(series: Series | None, mode: Literal["max", "min"]) -> Best | None:
    """Return the first best finite value, as checkpointing keeps it; None if there is none."""
    if series is None or not np.isfinite(series.y).any():
        return None
    i = int(np.nanargmax(series.y) if mode == "max" else np.nanargmin(series.y))
    return Best(float(series.x[i]), float(series.y[i]))


def plot_curves(metrics_csv: Path, out: Path, monitor: str, mode: Literal["max", "min"]) -> Best | None:
    """Draw the curves of a run as one PNG: losses, the task's metrics, learning rate; the best epoch is marked.

    Args:
        metrics_csv: What the CSV logger wrote; cells may be empty, values may be NaN.
        out: PNG file to write; its folder is made.
        monitor: Column that chose the best checkpoint, such as ``val/mean_iou``.
        mode: Whether the monitored figure should be large (``max``) or small (``min``).

    Returns:
        Best epoch and value of the monitored figure, or None where it was never finite.

    Raises:
        DataError: The CSV cannot be read, or the picture cannot be written.
    """
    series = read_metrics(metrics_csv)
    figure = curves_figure(series, monitor, mode)
    save_figure(figure, out)
    return find_best(series.get(monitor), mode)


def curves_figure(series: dict[str, Series], monitor: str, mode: Literal["max", "min"]) -> Figure:
    """Build the figure of ``plot_curves``: one panel each for loss, metrics and learning rate, where there are any."""
    from matplotlib.figure import Figure

    panels = _panels(series, monitor)
    figure = Figure(figsize=(4.6 * max(1, len(panels)) + 0.4, 3.9), layout="constrained", facecolor="white")
    if not panels:
        figure.text(0.5, 0.5, "no metrics were logged", ha="center", va="center", family=FAMILY)
        return figure
    best = find_best(series.get(monitor), mode)
    if best is None:
        text = f"{monitor} has no finite value" if monitor in series else f"{monitor} was not logged"
    else:
        text = f"best {monitor} = {best.value:.4g} at epoch {best.epoch:.4g}"
    figure.suptitle(drawable(text), fontsize=11, family=FAMILY, parse_math=False)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, names) in zip(axes, panels.items(), strict=True):
        _draw_panel(ax, title, {n: series[n] for n in names})
        if best is not None:
            ax.axvline(best.epoch, color=_BEST, linestyle=":", linewidth=1.2, zorder=1, label="_best epoch")
            if monitor in names:
                ax.plot([best.epoch], [best.value], "*", color=_BEST, markersize=11, zorder=5, label="_best value")
    _share_epochs(axes, [s for names in panels.values() for s in (series[n] for n in names)])
    return figure


def _panels(series: dict[str, Series], monitor: str) -> dict[str, list[str]]:
    """Sort the columns into panels; figures of the test and of single classes are for tables."""
    panels: dict[str, list[str]] = {"loss": [], "metrics": [], "learning rate": []}
    for name in series:
        stage, _, rest = name.partition("/")
        if stage == "lr" or stage.startswith("lr-"):
            panels["learning rate"].append(name)
        elif stage not in ("train", "val") and name != monitor:
            continue
        elif "loss" in rest.lower():
            panels["loss"].append(name)
        elif "/" not in rest or name == monitor:
            panels["metrics"].append(name)
    panels["metrics"].sort(key=lambda n: (n != monitor, n.startswith("train/")))
    return {title: names[:_MAX_LINES] for title, names in panels.items() if names}


def _draw_panel(ax: Axes, title: str, lines: dict[str, Series]) -> None:
    figures: dict[str, int] = {}  # both stages of a figure have one colour
    for i, (name, s) in enumerate(lines.items()):
        train = name.startswith("train/")
        if title == "loss" and len(lines) <= 2:
            colour = _TRAIN if train else _VAL
        else:
            figure_name = name.partition("/")[2] if title == "metrics" else name
            colour = _CYCLE[(figures.setdefault(figure_name, len(figures)) if title == "metrics" else i) % _MAX_LINES]
        finite = np.isfinite(s.y)
        style: dict[str, Any] = {"linestyle": "--"} if train and title == "metrics" else {}
        # Dots where lines would be invisible: few epochs, or a value between two gaps.
        alone = finite & ~np.r_[False, finite[:-1]] & ~np.r_[finite[1:], False]
        if len(s.x) <= 25 or alone.any():
            style |= {"marker": "o", "markersize": 3.5}
        label = drawable(name) if finite.any() else f"{drawable(name)} (not finite)"
        ax.plot(s.x, s.y, color=colour, linewidth=1.6, label=shorten(label, 34), **style)
    values = np.concatenate([s.y[np.isfinite(s.y)] for s in lines.values()])
    if title == "loss" and len(values) and values.min() > 0 and values.max() > 50 * values.min():
        ax.set_yscale("log")
    ax.set_title(title, fontsize=11, family=FAMILY)
    ax.set_xlabel("epoch", fontsize=9, family=FAMILY)
    ax.tick_params(labelsize=8)
    ax.grid(True, color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    legend = ax.legend(
        fontsize=8, framealpha=0.85, edgecolor="none", loc="lower right" if title == "metrics" else "upper right"
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a "$" in a name is no formula


def _share_epochs(axes: Any, lines: list[Series]) -> None:
    """Give all panels one axis of whole epochs."""
    from matplotlib.ticker import MaxNLocator

    low = min(float(s.x.min()) for s in lines)
    high = max(float(s.x.max()) for s in lines)
    margin = max(0.5, 0.03 * (high - low)) if high - low < 10 else 0.03 * (high - low)
    for ax in axes:
        ax.set_xlim(low - margin, high + margin)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
