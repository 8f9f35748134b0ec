"""The pictures of anomaly detection: scores by truth, the most unusual images, confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_vision.reports.confusion import plot_confusion
from lightning_vision.reports.files import whole_file
from lightning_vision.reports.scored import Scored
from lightning_vision.reports.sheet import label_sheet
from lightning_vision.reports.text import FAMILY, drawable
from lightning_vision.tasks.anomaly import confusion_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 12
SEARCHED = 240  # images that are looked through for the most unusual ones, where the order of the scores is not known
BINS = 40
NORMAL_COLOUR, ANOMALOUS_COLOUR = "#0072B2", "#D55E00"


def draw(scored: Scored) -> None:
    """Write ``scores.png``, ``predictions.png`` with the most unusual images, and ``confusion.png``."""
    names, computed = scored.head.task.target.class_names, scored.computed
    threshold = computed["threshold"].item()
    scores, anomalous = (computed[key].cpu().numpy() for key in ("scores", "anomalous"))
    plot_scores(scores, anomalous, threshold, names, scored.plots / "scores.png")
    confusion = confusion_of(computed)
    if confusion is not None:
        plot_confusion(confusion.cpu().numpy(), names, scored.plots / "confusion.png")
    batch, output = scored.predict(_most_unusual(scored, scores))
    truths = scored.head.target(batch)
    assert truths is not None
    samples = [
        (image, names[truth], _decided(score, threshold, names), f"{score:.4g}", title)
        for image, truth, score, title in zip(
            scored.shown(batch), truths.tolist(), output.logits.tolist(), scored.titles(batch), strict=True
        )
    ]
    samples.sort(key=lambda sample: -float(sample[3]))
    label_sheet(samples, scored.plots / "predictions.png")


def _decided(score: float, threshold: float, names: Sequence[str]) -> str:
    return "no threshold" if math.isnan(threshold) else names[score >= threshold]


def _most_unusual(scored: Scored, scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The rows with the highest scores; where it is not known which score is of which row, among a sample."""
    rows = scored.data.index.rows(scored.split)
    # A skipped image leaves a gap, and several processes have taken turns.
    if len(scores) != len(rows) or scored.module.trainer.world_size > 1:
        rows = scored.spread(SEARCHED)
        parts = np.array_split(rows, -(-len(rows) // SAMPLES))
        scores = np.concatenate([scored.predict(part)[1].logits.numpy() for part in parts])
    return rows[np.argsort(-scores, kind="stable")[:SAMPLES]]


def plot_scores(
    scores: NDArray[Any], anomalous: NDArray[Any], threshold: float, names: Sequence[str], out: Path
) -> None:
    """Draw a histogram of the scores of what is normal and what is not, with the threshold.

    Args:
        scores: ``(N,)``, from 0 on.
        anomalous: bool ``(N,)``.
        threshold: Scores from here on are called anomalous; NaN for none.
        names: Names of normal and anomalous.
        out: PNG file to write; its folder is made.

    Raises:
        DataError: The picture cannot be written.
    """
    figure = scores_figure(scores, anomalous, threshold, names)
    with whole_file(out) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def scores_figure(scores: NDArray[Any], anomalous: NDArray[Any], threshold: float, names: Sequence[str]) -> Figure:
    """Build the figure of ``plot_scores``; the axis is logarithmic where scores differ by orders of magnitude."""
    from matplotlib.figure import Figure

    finite = np.isfinite(scores)
    scores, anomalous = scores[finite].astype(np.float64), anomalous[finite].astype(bool)
    figure = Figure(figsize=(7.2, 4.0), layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    if len(scores):
        low, middle, high = scores.min(), np.median(scores), scores.max()
        wide = low > 0 and high > 20 * middle
        edges = np.geomspace(low, high, BINS + 1) if wide else np.linspace(low, max(high, low + 1e-12), BINS + 1)
        for truth, name, colour in ((False, names[0], NORMAL_COLOUR), (True, names[1], ANOMALOUS_COLOUR)):
            part = scores[anomalous == truth]
            label = f"{drawable(name)} ({len(part)})"
            ax.hist(part, edges.tolist(), color=colour, alpha=0.6, label=label)
        if wide:
            ax.set_xscale("log")
    if not math.isnan(threshold):
        ax.axvline(threshold, color="#222222", linestyle="--", linewidth=1.3, label=f"threshold {threshold:.4g}")
    ax.set_xlabel("score: squared distance from the centre", fontsize=10, family=FAMILY)
    ax.set_ylabel("images", fontsize=10, family=FAMILY)
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        for text in ax.legend(fontsize=9, framealpha=0.85, edgecolor="none").get_texts():
            text.set_parse_math(False)  # a "$" in a name is no formula
    return figure
