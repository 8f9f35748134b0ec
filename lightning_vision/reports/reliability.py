"""How far probabilities can be trusted: what they promise against what is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_vision.metrics.calibration import LEAST
from lightning_vision.metrics.classification import CALIBRATION_BINS, add_calibration, calibration_error
from lightning_vision.reports.files import save_figure
from lightning_vision.reports.scored import Picture, Scored
from lightning_vision.reports.text import FAMILY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RIGHT, _GAP, _COUNT, _EXACT = "#0072B2", "#D55E00", "#9AA3AD", "#444444"
TEXT = (
    "Images are sorted by how sure the model was of its prediction; in each bin the share that was right stands "
    "against that confidence. On the diagonal a confidence of 80 % is right four times in five; bars below it: the "
    "model is too sure. Grey: how many images each bin has."
)
OF_LABELS = (
    "Pairs of image and label are sorted by the label's probability; in each bin the share of pairs that do have the "
    "label stands against that probability. On the diagonal the probabilities can be taken at their word. Grey: how "
    "many pairs each bin has."
)


class Bins(NamedTuple):
    """One diagram.

    Args:
        title: What it is of.
        counts: float64 ``(3, 16)``, of ``add_calibration``.
    """

    title: str
    counts: NDArray[np.float64]


def draw_of_classes(scored: Scored) -> list[Picture]:
    """Write ``reliability.png`` of the most probable classes; with a temperature, also how it was without."""
    computed = scored.computed
    diagrams = [Bins("reliability", computed["calibration"].cpu().numpy())]
    temperature = float(scored.head.temperature)
    if temperature != 1 and "probabilities" in computed:
        truth = computed["truth"].cpu()
        known = (truth == 1).any(1)
        logits = computed["probabilities"].cpu()[known].clamp(min=LEAST).log() * temperature
        confidence, predicted = logits.softmax(1).max(1)
        before = _bins(confidence, predicted == truth[known].argmax(1))
        diagrams = [Bins("without temperature", before), Bins(f"temperature {temperature:.3g}", diagrams[0].counts)]
    return _draw(diagrams, scored, TEXT)


def draw_of_labels(scored: Scored) -> list[Picture]:
    """Write ``reliability.png`` of the probabilities of labels, each of which is there or not."""
    computed = scored.computed
    if "probabilities" not in computed:
        return []
    truth, chances = computed["truth"].cpu(), computed["probabilities"].cpu()
    known = truth <= 1
    chance, there = chances[known], truth[known] == 1
    diagrams = [Bins("reliability", _bins(chance, there))]
    temperature = float(scored.head.temperature)
    if temperature != 1:
        raw = (chance.double().logit(2.0**-25) * temperature).sigmoid().float()
        diagrams = [
            Bins("without temperature", _bins(raw, there)),
            Bins(f"temperature {temperature:.3g}", diagrams[0].counts),
        ]
    return _draw(diagrams, scored, OF_LABELS)


def _bins(confidence: Tensor, right: Tensor) -> NDArray[np.float64]:
    bins = torch.zeros(3, CALIBRATION_BINS + 1, dtype=torch.float64)
    add_calibration(bins, confidence.float(), right)
    found: NDArray[np.float64] = bins.numpy()
    return found


def _draw(diagrams: Sequence[Bins], scored: Scored, text: str) -> list[Picture]:
    if not diagrams[-1].counts[0].any():
        return []
    out = scored.plots / "reliability.png"
    save_figure(reliability_figure(diagrams), out)
    return [Picture(out, "Reliability", text)]


def reliability_figure(diagrams: Sequence[Bins]) -> Figure:
    """Build the figure: for each diagram the shares that are right over the confidence, and the counts below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(diagrams) + 0.4, 4.9), layout="constrained", facecolor="white")
    axes = figure.subplots(2, len(diagrams), squeeze=False, sharex=True, height_ratios=(3.2, 1))
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    for column, (title, counts) in enumerate(diagrams):
        error = float(calibration_error(torch.from_numpy(counts)))
        # A confidence of one lies at the end of the last bin.
        counts = np.c_[counts[:, :-2], counts[:, -2:].sum(1)]
        many, confidence, hits = counts
        filled = many > 0
        share, sure = (np.divide(part, many, out=np.zeros_like(many), where=filled) for part in (hits, confidence))
        _draw_shares(axes[0, column], edges, share, sure, filled)
        axes[0, column].set_title(f"{title}: error (ECE) {error:.3f}", fontsize=11, family=FAMILY)
        axes[1, column].bar(edges[:-1], many, width=np.diff(edges), align="edge", color=_COUNT, edgecolor="white")
        axes[1, column].set_xlabel("confidence", fontsize=9, family=FAMILY)
    axes[0, 0].set_ylabel("share that is right", fontsize=9, family=FAMILY)
    axes[1, 0].set_ylabel("count", fontsize=9, family=FAMILY)
    for ax in axes.flat:
        ax.set_xlim(0, 1)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_shares(
    ax: Any,
    edges: NDArray[np.float64],
    share: NDArray[np.float64],
    sure: NDArray[np.float64],
    filled: NDArray[np.bool_],
) -> None:
    """Bars of what is right, and how far each is from what was promised."""
    left, width = edges[:-1][filled], np.diff(edges)[filled]
    ax.bar(left, share[filled], width=width, align="edge", color=_RIGHT, edgecolor="white", alpha=0.85, label="right")
    low, high = np.minimum(share, sure)[filled], np.maximum(share, sure)[filled]
    ax.bar(
        left,
        high - low,
        bottom=low,
        width=width,
        align="edge",
        facecolor="none",
        edgecolor=_GAP,
        hatch="////",
        linewidth=0,
        label="gap to the confidence",
    )
    ax.plot([0, 1], [0, 1], color=_EXACT, linewidth=1, linestyle=":", label="exact")
    ax.set_ylim(0, 1.02)
    ax.legend(fontsize=8, framealpha=0.85, edgecolor="none", loc="upper left")
