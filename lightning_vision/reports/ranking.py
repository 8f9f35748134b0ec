"""How well scores order what is there before what is not: ROC, and precision against recall."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightning_vision.reports.files import save_figure
from lightning_vision.reports.palette import class_palette
from lightning_vision.reports.scored import Picture
from lightning_vision.reports.text import FAMILY, class_label, shorten
from lightning_vision.types import UNKNOWN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CURVES = 12
MOST_POINTS = 2000  # of a curve that are drawn
TEXT = (
    "Left: the share of the positives that is found against the share of the negatives that is taken for one, at every "
    "threshold; the dotted line is chance. Right: how much of what is found is right. In brackets the positives."
)

Floats = NDArray[np.float64]


def draw_ranking(scores: NDArray[np.floating], truth: NDArray[np.uint8], names: Sequence[str], out: Path) -> Picture:
    """Write a PNG with the ROC curve and precision against recall of each column.

    Args:
        scores: ``(N, L)``, larger = rather positive.
        truth: ``(N, L)`` of 0, 1 and 255 for unknown.
        names: Names of the L columns.
        out: PNG file to write.

    Raises:
        DataError: The picture cannot be written.
    """
    save_figure(ranking_figure(scores, truth, names), out)
    return Picture(out, "ROC, precision and recall", TEXT)


def ranking_figure(scores: NDArray[np.floating], truth: NDArray[np.uint8], names: Sequence[str]) -> Figure:
    """Build the figure of ``draw_ranking``; of more than 12 columns those with the most positives are shown."""
    from matplotlib.figure import Figure

    positives = (truth == 1).sum(0)
    shown = np.sort(np.argsort(-positives, kind="stable")[:MOST_CURVES])
    colours = class_palette(max(len(names), 2), dark_background=False)
    figure = Figure(figsize=(11.2, 4.2), layout="constrained", facecolor="white")
    roc, precision = figure.subplots(1, 2)
    for c in shown.tolist():
        known = (truth[:, c] != UNKNOWN) & np.isfinite(scores[:, c])
        found, alarms, hits = curves(scores[known, c], truth[known, c] == 1)
        if not positives[c]:
            continue
        colour = tuple(v / 255 for v in colours[c])
        label = f"{shorten(class_label(c, names[c]), 24)} ({positives[c]})"
        roc.plot(alarms, found, color=colour, linewidth=1.6)
        precision.step(found[1:], hits[1:], where="post", color=colour, linewidth=1.6, label=label)
    roc.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle=":")
    roc.set(xlabel="share of negatives taken for positives", ylabel="share of positives found (recall)")
    precision.set(xlabel="recall", ylabel="precision")
    for ax in (roc, precision):
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
        ax.grid(True, color="#DDDDDD", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    if precision.lines:
        legend = precision.legend(fontsize=8, edgecolor="none", loc="center left", bbox_to_anchor=(1.01, 0.5))
        for text in legend.get_texts():
            text.set(family=FAMILY, parse_math=False)
    return figure


def curves(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Return recall, share of false alarms and precision at every threshold, the highest first.

    Rows of equal scores are called together. Of very many thresholds an even sample.

    Args:
        scores: ``(N,)``, larger = rather positive.
        positive: ``(N,)``.
    """
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    last = np.r_[np.flatnonzero(np.diff(scores)), len(scores) - 1] if len(scores) else np.empty(0, np.int64)
    if len(last) > MOST_POINTS:
        last = last[np.unique(np.linspace(0, len(last) - 1, MOST_POINTS).round().astype(int))]
    hits = np.r_[0, np.cumsum(positive)[last]].astype(np.float64)
    called = np.r_[0, last + 1].astype(np.float64)
    negatives = max(len(positive) - int(positive.sum()), 1)
    precision = np.divide(hits, called, out=np.ones_like(hits), where=called > 0)
    return hits / max(int(positive.sum()), 1), (called - hits) / negatives, precision
