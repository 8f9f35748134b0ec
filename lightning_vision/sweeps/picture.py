"""The leaderboard as a picture: the monitored figure over what was swept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_vision.reports.files import whole_file
from lightning_vision.reports.text import FAMILY, drawable, shorten
from lightning_vision.sweeps.leaderboard import ranked
from lightning_vision.sweeps.trial import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = "leaderboard.png"
MAX_BARS = 30
WIDE = 10  # numbers that span so many times the smallest are drawn by order of magnitude
FEW = 6  # so many values of a number are drawn as lines, more as an axis
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C564B")
_MARKS = "osD^vPX*"
_BEST = "#222222"


def draw(trials: Sequence[Trial], folder: Path) -> None:
    """Draw ``leaderboard.png``, a panel for each monitored figure; nothing if no trial has one yet.

    One number that was varied gives a curve (a cloud, of a search), with a line for each choice of one other key, also
    for a few values of another number; two numbers of many values give a map of points; anything else bars, the best on
    top. The best trial is marked.

    Raises:
        DataError: The folder cannot be written.
    """
    groups: dict[str, list[Trial]] = {}
    for rank, trial in ranked(trials):
        if rank is not None:
            groups.setdefault(trial.monitor or "figure", []).append(trial)
    if not groups:
        return
    from matplotlib.figure import Figure

    heights = [_height(group) for group in groups.values()]
    figure = Figure(figsize=(7.6, sum(heights)), layout="constrained", facecolor="white")
    panels = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for ax, (name, group) in zip(panels, groups.items(), strict=True):
        _panel(figure, ax, name, group)
    with whole_file(folder / FILE) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _height(group: Sequence[Trial]) -> float:
    numbers, choices = _varied(group)
    return 4.2 if _is_plot(numbers, choices) else 1.2 + 0.27 * min(len(group), MAX_BARS)


def _is_plot(numbers: Sequence[str], choices: Sequence[str]) -> bool:
    return (len(numbers) == 1 and len(choices) <= 1) or (len(numbers) == 2 and not choices)


def _varied(group: Sequence[Trial]) -> tuple[list[str], list[str]]:
    """The keys with several values in these trials: those of numbers, and the others."""
    keys = list(dict.fromkeys(key for t in group for key in t.values))
    varied = [key for key in keys if len({t.values.get(key) for t in group}) > 1]
    numbers = [key for key in varied if all(math.isfinite(_number(t.values.get(key))) for t in group)]
    choices = [key for key in varied if key not in numbers]
    if len(numbers) == 2 and not choices:
        fewest = min(reversed(numbers), key=lambda key: len({t.values[key] for t in group}))
        if len({t.values[fewest] for t in group}) <= FEW:
            numbers.remove(fewest)
            choices = [fewest]
    return numbers, choices


def _number(text: str | None) -> float:
    try:
        return math.nan if text is None else float(text)
    except ValueError:
        return math.nan


def _panel(figure: Figure, ax: Axes, name: str, group: Sequence[Trial]) -> None:
    """Draw trials with one monitored figure; the best comes first."""
    numbers, choices = _varied(group)
    best = group[0]
    if not _is_plot(numbers, choices):
        _bars(ax, group)
        ax.set_xlabel(drawable(name), fontsize=9, family=FAMILY)
    elif len(numbers) == 2:
        x, y = ([_number(t.values[key]) for t in group] for key in numbers)
        colours = "viridis" if best.direction == "max" else "viridis_r"
        points = ax.scatter(x, y, c=[t.value or 0.0 for t in group], cmap=colours, s=46, edgecolors="white")
        ax.plot(x[:1], y[:1], "o", markersize=13, markerfacecolor="none", markeredgecolor=_BEST)
        bar = figure.colorbar(points, ax=ax)
        bar.set_label(drawable(name), fontsize=9, family=FAMILY)
        bar.ax.tick_params(labelsize=8)
        _axis(ax, "x", numbers[0], x)
        _axis(ax, "y", numbers[1], y)
    else:
        _lines(ax, numbers[0], choices[0] if choices else None, group)
        ax.set_ylabel(drawable(name), fontsize=9, family=FAMILY)
    ax.set_title(drawable(shorten(f"best: trial {best.number}, {best.said}", 88)), fontsize=10, family=FAMILY)
    ax.tick_params(labelsize=8)
    ax.grid(True, color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _lines(ax: Axes, key: str, choice: str | None, group: Sequence[Trial]) -> None:
    """The figure over one number, a line for each choice of another key."""
    series: dict[str, list[Trial]] = {}
    for trial in sorted(group, key=lambda t: t.number):
        series.setdefault("" if choice is None else trial.values.get(choice, "-"), []).append(trial)
    # Where many numbers occur once, they were drawn, and a line between neighbours would mean nothing.
    drawn = len({t.values[key] for t in group}) > 12
    for i, (label, members) in enumerate(series.items()):
        members = sorted(members, key=lambda t: _number(t.values[key]))
        x, y = [_number(t.values[key]) for t in members], [t.value or 0.0 for t in members]
        style = "none" if drawn else "-"
        text = drawable(shorten(label, 30)) if i < 12 else "_"
        mark = _MARKS[i // len(_COLOURS) % len(_MARKS)]
        colour = _COLOURS[i % len(_COLOURS)]
        ax.plot(x, y, marker=mark, markersize=5, linestyle=style, linewidth=1.5, color=colour, label=text or None)
    best = group[0]
    at = [_number(best.values[key])], [best.value or 0.0]
    ax.plot(*at, "o", markersize=12, markerfacecolor="none", markeredgecolor=_BEST, label="best")
    _axis(ax, "x", key, [_number(t.values[key]) for t in group])
    _legend(ax, title=choice)


def _axis(ax: Axes, which: str, key: str, values: Sequence[float]) -> None:
    if min(values) > 0 and max(values) >= WIDE * min(values):
        ax.set(**{f"{which}scale": "log"})
    ax.set(**{f"{which}label": drawable(key)})
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.label.set(fontsize=9, family=FAMILY)


def _legend(ax: Axes, title: str | None = None) -> None:
    legend = ax.legend(fontsize=8, framealpha=0.85, edgecolor="none", title=title and drawable(title), title_fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a "$" in a name is no formula


def _bars(ax: Axes, group: Sequence[Trial]) -> None:
    """The best trials as bars, the best on top, each with its value."""
    shown = list(group[:MAX_BARS])
    numbers, choices = _varied(group)
    varied = {*numbers, *choices}
    values = [t.value or 0.0 for t in shown]
    places = range(len(shown), 0, -1)
    ax.barh(places, values, height=0.72, color=[_COLOURS[0], *["#A9C6DC"] * (len(shown) - 1)])
    labels = []
    for t in shown:
        said = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in t.values.items() if key in varied)
        labels.append(drawable(shorten(f"{t.number}: {said}" if said else f"trial {t.number}", 46)))
    ax.set_yticks(list(places), labels)
    ax.set_ylim(0.4, len(shown) + 0.6)
    for place, value in zip(places, values, strict=True):
        ax.annotate(f" {value:.4g}", (value, place), va="center", fontsize=8, family=FAMILY)
    ax.margins(x=0.14)
    ax.set_xlim(left=min(0.0, ax.get_xlim()[0] if min(values) < 0 else 0.0))
    if len(group) > len(shown):
        ax.text(0.99, 0.01, f"the best {len(shown)} of {len(group)}", transform=ax.transAxes, ha="right", fontsize=8)
