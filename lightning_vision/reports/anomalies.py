"""The pictures of anomaly detection: scores by truth, the most unusual images, confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_vision.reports.confusion import plot_confusion
from lightning_vision.reports.files import save_figure
from lightning_vision.reports.ranking import draw_ranking
from lightning_vision.reports.scored import Picture, Scored
from lightning_vision.reports.sheet import LabelSample, label_sheet
from lightning_vision.reports.text import FAMILY, drawable
from lightning_vision.tasks.anomaly import confusion_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES = "The scores of the images by their truth; what lies right of the threshold is called anomalous."
CONFUSION = "Decisions at the threshold: each row is the truth, each column what was decided."
WORST = (
    "False alarms and misses whose score is beyond the threshold by the largest factor, the worst first. The number is "
    "the score."
)
UNUSUAL = "The images with the highest scores, the highest first."
BINS = 40
NORMAL_COLOUR, ANOMALOUS_COLOUR = "#0072B2", "#D55E00"


def draw(scored: Scored) -> list[Picture]:
    """Write ``scores.png``, ``precision_recall.png``, ``confusion.png``, ``worst.png``, ``predictions.png``.

    The last one shows the images with the highest scores.
    """
    names, computed, plots = scored.head.task.target.class_names, scored.computed, scored.plots
    threshold = computed["threshold"].item()
    scores, anomalous = (computed[key].cpu().numpy() for key in ("scores", "anomalous"))
    plot_scores(scores, anomalous, threshold, names, plots / "scores.png")
    pictures = [Picture(plots / "scores.png", "Scores", SCORES)]
    if anomalous.any() and not anomalous.all():
        truth = anomalous.astype(np.uint8)[:, None]
        pictures.append(draw_ranking(scores[:, None], truth, names[1:], plots / "precision_recall.png"))
    confusion = confusion_of(computed)
    if confusion is not None:
        plot_confusion(confusion.cpu().numpy(), names, plots / "confusion.png")
        pictures.append(Picture(plots / "confusion.png", "Confusion matrix", CONFUSION))
    for file, title, text, rows in (
        ("worst.png", "The worst decisions", WORST, scored.worst),
        ("predictions.png", "The most unusual images", UNUSUAL, scored.prominent),
    ):
        if len(rows):
            label_sheet(_samples(scored, rows, threshold), plots / file)
            pictures.append(Picture(plots / file, title, text))
    return pictures


def _samples(scored: Scored, rows: NDArray[np.int64], threshold: float) -> list[LabelSample]:
    names = scored.head.task.target.class_names
    batch, output = scored.predict(rows)
    truths = scored.head.target(batch)
    assert truths is not None
    return [
        (image, names[truth], _decided(score, threshold, names), f"{score:.4g}", title)
        for image, truth, score, title in zip(
            scored.shown(batch), truths.tolist(), output.logits.tolist(), scored.titles(batch), strict=True
        )
    ]


def _decided(score: float, threshold: float, names: Sequence[str]) -> str:
    return "no threshold" if math.isnan(threshold) else names[score >= threshold]


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
    save_figure(figure, out)


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
