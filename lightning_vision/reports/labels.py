"""The pictures of a classification: confusion matrix, reliability, curves, map of the embeddings, sheets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_vision.reports.confusion import plot_confusion
from lightning_vision.reports.embeddings import MAP, plot_embeddings
from lightning_vision.reports.ranking import draw_ranking
from lightning_vision.reports.reliability import draw_of_classes
from lightning_vision.reports.scored import Picture, Scored
from lightning_vision.reports.sheet import LabelSample, label_sheet

Samples = Callable[[NDArray[np.int64]], list[LabelSample]]

SAMPLES = 12
CONFUSION = "Each row is a true class, each column what was predicted for it; the diagonal is right."
WORST = (
    "The images to whose true class the model gave the least probability, the worst first: look here for wrong labels, "
    "for what is ambiguous, and for what the model never learned. The percentage is that of the prediction."
)
SPREAD = "Images taken evenly from the whole split, right and wrong as they come."


def draw(scored: Scored) -> list[Picture]:
    """Write ``confusion.png``, ``reliability.png``, ``precision_recall.png``, ``worst.png`` and ``predictions.png``.

    Where the decoder tells its embeddings, ``embeddings.png`` too.
    """
    names, computed = scored.head.task.target.class_names, scored.computed
    plot_confusion(computed["confusion"].cpu().numpy(), names, scored.plots / "confusion.png")
    pictures = [Picture(scored.plots / "confusion.png", "Confusion matrix", CONFUSION), *draw_of_classes(scored)]
    pictures += draw_curves(scored, names)
    if "embeddings" in computed:
        # A counter squeezes what holds a single value.
        predicted, truth = (computed[f"embedded_{name}"].cpu().reshape(-1) for name in ("predicted", "truth"))
        vectors = computed["embeddings"].cpu().reshape(len(truth), -1)
        plot_embeddings(vectors, predicted, truth, names, scored.called, scored.plots / "embeddings.png")
        pictures.append(Picture(scored.plots / "embeddings.png", "Map of the embeddings", MAP))
    return [*pictures, *draw_sheets(scored, WORST, lambda rows: _samples(scored, rows))]


def draw_curves(scored: Scored, names: Sequence[str]) -> list[Picture]:
    """Write ``precision_recall.png`` of stored probabilities, one class against the rest."""
    computed = scored.computed
    if "probabilities" not in computed:
        return []
    truth = computed["truth"].cpu().numpy()
    if not ((truth == 1).any() and (truth == 0).any()):
        return []
    probabilities = computed["probabilities"].cpu().numpy()
    return [draw_ranking(probabilities, truth, names, scored.plots / "precision_recall.png")]


def draw_sheets(scored: Scored, worst: str, samples: Samples) -> list[Picture]:
    """Write ``worst.png`` and ``predictions.png``.

    Args:
        scored: The split.
        worst: What makes an image one of the worst.
        samples: Rows as samples of a sheet.
    """
    pictures = []
    for file, title, text, rows in (
        ("worst.png", "The worst images", worst, scored.worst),
        ("predictions.png", "A sample of the predictions", SPREAD, scored.spread(SAMPLES)),
    ):
        if len(rows):
            label_sheet(samples(rows), scored.plots / file)
            pictures.append(Picture(scored.plots / file, title, text))
    return pictures


def _samples(scored: Scored, rows: NDArray[np.int64]) -> list[LabelSample]:
    names = scored.head.task.target.class_names
    batch, output = scored.predict(rows)
    truths = scored.head.target(batch)
    assert truths is not None
    probabilities, predicted = scored.head.probabilities(output.logits).max(1)
    named = scored.head.task.texts(truths)
    guesses = [names[i] for i in predicted.tolist()]
    return list(zip(scored.shown(batch), named, guesses, probabilities.tolist(), scored.titles(batch), strict=True))
