"""The pictures of an open-set classification: known classes, and what is unknown beside them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_vision.head import HeadOutput
from lightning_vision.reports.confusion import plot_confusion
from lightning_vision.reports.labels import CONFUSION, draw_sheets
from lightning_vision.reports.ranking import draw_ranking
from lightning_vision.reports.reliability import draw_of_classes
from lightning_vision.reports.scored import Picture, Scored
from lightning_vision.reports.sheet import LabelSample
from lightning_vision.tasks.open_set import UNKNOWN, OpenSet

WORST = (
    "Wrong decisions, those whose confidence lies farthest from the threshold first: unknown images that were taken "
    "for a known class, known ones that were rejected or confused. The percentage is that of the class."
)


def draw(scored: Scored) -> list[Picture]:
    """Write the pictures of a classification; in ``confusion.png`` the last row and column are what is unknown.

    ``precision_recall.png`` is of telling known images from unknown ones, and ``reliability.png`` of the known ones.
    """
    computed, names = scored.computed, _names(scored)
    last = len(names) - 1
    truth = computed["labels"].where(computed["known"], last)
    predicted = computed["predicted"].where(computed["confidence"] >= scored.head.threshold, last)
    counts = torch.bincount((truth * len(names) + predicted).cpu(), minlength=len(names) ** 2)
    plot_confusion(counts.view(len(names), -1).numpy(), names, scored.plots / "confusion.png")
    pictures = [Picture(scored.plots / "confusion.png", "Confusion matrix", CONFUSION), *draw_of_classes(scored)]
    known = computed["known"].cpu()
    if known.any() and not known.all():
        scores = computed["confidence"].cpu().numpy()[:, None]
        truths = known.to(torch.uint8).numpy()[:, None]
        pictures.append(draw_ranking(scores, truths, ("known",), scored.plots / "precision_recall.png"))
    return [*pictures, *draw_sheets(scored, WORST, lambda rows: _samples(scored, rows))]


def _names(scored: Scored) -> tuple[str, ...]:
    return (*scored.head.task.target.class_names, UNKNOWN)


def _samples(scored: Scored, rows: NDArray[np.int64]) -> list[LabelSample]:
    head, names = scored.head, _names(scored)
    assert isinstance(head.task, OpenSet)
    batch, output = scored.predict(rows)
    truths = head.target(batch)
    assert truths is not None
    chances, guesses = head.probabilities(output.logits).max(1)
    kept = head.task.confidence(head, HeadOutput(output.logits, output.hidden)) >= head.threshold.cpu()
    shown = [names[i] if keep else UNKNOWN for i, keep in zip(guesses.tolist(), kept.tolist(), strict=True)]
    right = [names[min(i, len(names) - 1)] for i in truths.tolist()]
    return list(zip(scored.shown(batch), right, shown, chances.tolist(), scored.titles(batch), strict=True))
