"""The confusion matrix as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_vision.reports.files import save_figure
from lightning_vision.reports.text import FAMILY, class_label, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_WITH_TEXT = 20  # classes up to which the cells hold counts and shares
_NAME_LENGTH = 20
_MAX_TICKS = 100


def plot_confusion(matrix: NDArray[Any], class_names: Sequence[str], out: Path) -> None:
    """Draw a confusion matrix as a PNG: each row is shown in shares of its class's targets.

    Args:
        matrix: Counts ``(C, C)``; rows are the truth, columns the prediction.
        class_names: Names of the C classes.
        out: PNG file to write; its folder is made.

    Raises:
        ValueError: The matrix does not fit the names.
        DataError: The picture cannot be written.
    """
    figure = confusion_figure(matrix, class_names)
    save_figure(figure, out)


def confusion_figure(matrix: NDArray[Any], class_names: Sequence[str]) -> Figure:
    """Build the figure of ``plot_confusion``; cells without a count stay empty, classes without a target are grey."""
    import matplotlib
    from matplotlib.figure import Figure

    counts = np.asarray(matrix, dtype=np.float64)
    classes = len(class_names)
    if counts.shape != (classes, classes) or not classes:
        raise ValueError(f"{classes} class names need a matrix ({classes}, {classes}), got {counts.shape}")
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)

    cell = 0.62 if classes <= MAX_WITH_TEXT else min(0.17, 20 / classes)
    side = max(cell * classes, 2.4)
    figure = Figure(figsize=(side + 3.0, side + 2.2), layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    colours = matplotlib.colormaps["Blues"].with_extremes(bad="#EEEEEE")
    image = ax.imshow(np.ma.masked_invalid(shares), cmap=colours, vmin=0, vmax=1, interpolation="nearest")

    step = -(-classes // _MAX_TICKS)
    ticks = list(range(0, classes, step))
    names = [shorten(class_label(i, class_names[i]), _NAME_LENGTH) for i in ticks]
    size = 9 if classes <= MAX_WITH_TEXT else 7
    text: dict[str, Any] = {"fontsize": size, "family": FAMILY, "parse_math": False}
    # Short names of few classes stand upright; anything else would run into its neighbour.
    upright = max(map(len, names)) * size * 0.6 / 72 < side / len(ticks)
    turned: dict[str, Any] = {"rotation": 90 if classes > MAX_WITH_TEXT else 45, "ha": "right", "va": "center"}
    slant = {} if upright else turned | {"rotation_mode": "anchor"}
    ax.set_xticks(ticks, names, **text, **slant)
    ax.set_yticks(ticks, names, **text)
    ax.set_xlabel("prediction", fontsize=10, family=FAMILY)
    ax.set_ylabel("truth", fontsize=10, family=FAMILY)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0 if step == 1 else 3)
    if classes <= MAX_WITH_TEXT:
        # White lines between the cells.
        ax.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
        ax.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1.5)
        ax.tick_params(which="minor", length=0)
        for row, column in zip(*np.nonzero(counts), strict=True):
            share = shares[row, column]
            ax.text(
                column,
                row,
                f"{percent(share)}\n{short_count(counts[row, column])}",
                ha="center",
                va="center",
                fontsize=8,
                linespacing=1.3,
                family=FAMILY,
                color="white" if share > 0.55 else "#222222",
            )
    bar = figure.colorbar(image, ax=ax, shrink=0.7, pad=0.02, aspect=30, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.ax.set_yticklabels(["0 %", "25 %", "50 %", "75 %", "100 %"], fontsize=8, family=FAMILY)
    bar.outline.set_visible(False)
    bar.set_label("share of the class's targets", fontsize=8, family=FAMILY)
    total = counts.sum()
    right = f"{100 * np.trace(counts) / total:.1f} % of {short_count(total)} right" if total else "no targets"
    ax.set_title(right, fontsize=11, family=FAMILY)
    return figure


def percent(share: float) -> str:
    """A share as a percentage of at most four characters; a small one never reads as none, nor a large one as all."""
    value = 100 * share
    if 0 < value < 0.5:
        return "<1%"
    if 99.5 <= value < 100:
        return ">99%"
    return f"{value:.0f}%"


def short_count(count: float) -> str:
    """A count of at most five characters: 950, 12.3k, 4.1M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            scaled = count / (1e3 if unit == "k" else limit)
            return f"{scaled:.1f}{unit}" if scaled < 99.95 else f"{scaled:.0f}{unit}"
    return f"{count:.0f}"
