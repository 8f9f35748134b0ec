"""The losses of the search for a learning rate, and the rate that was chosen, as one picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_vision.reports.files import save_figure
from lightning_vision.reports.text import FAMILY

if TYPE_CHECKING:
    from lightning_vision.tuning.learning_rate import Curve

_LOSS, _SMOOTH, _CHOSEN = "#BBBBBB", "#0072B2", "#D55E00"


def plot_learning_rate(curve: Curve, out: Path) -> None:
    """Draw the losses over the rates, their running mean, and the chosen rate.

    Args:
        curve: What was found.
        out: PNG file to write; its folder is made.

    Raises:
        DataError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.9), layout="constrained", facecolor="white")
    ax = figure.subplots()
    count = len(curve.losses)
    smooth = curve.smooth
    ax.plot(curve.rates[:count], curve.losses, color=_LOSS, linewidth=1, label="loss of a step")
    ax.plot(curve.rates[:count], smooth, color=_SMOOTH, linewidth=1.8, label="running mean")
    title = "no rate made the loss fall"
    if curve.chosen is not None:
        chosen = curve.chosen
        title = f"lr={chosen:.2g}"
        at = min(range(count), key=lambda i: abs(math.log(curve.rates[i] / chosen)))
        ax.axvline(chosen, color=_CHOSEN, linestyle=":", linewidth=1.2)
        ax.plot([chosen], [smooth[at]], "o", color=_CHOSEN, markersize=7, zorder=5, label="chosen")
    if smooth:
        # The last losses may be thousands of times the first.
        low, high = min(smooth), max(smooth[: max(1, count // 2)])
        ax.set_ylim(low - 0.1 * (high - low), high + 0.5 * (high - low) + 1e-9)
    ax.set_xscale("log")
    ax.set_title(title, fontsize=11, family=FAMILY)
    ax.set_xlabel("learning rate", fontsize=9, family=FAMILY)
    ax.set_ylabel("loss", fontsize=9, family=FAMILY)
    ax.tick_params(labelsize=8)
    ax.grid(True, color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8, framealpha=0.85, edgecolor="none", loc="lower left")
    save_figure(figure, out)
