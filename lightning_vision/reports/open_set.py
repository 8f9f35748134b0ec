"""The pictures of an open-set classification: known classes, and what is unknown beside them."""

from __future__ import annotations

import torch

from lightning_vision.head import HeadOutput
from lightning_vision.reports.confusion import plot_confusion
from lightning_vision.reports.labels import SAMPLES
from lightning_vision.reports.scored import Scored
from lightning_vision.reports.sheet import label_sheet
from lightning_vision.tasks.open_set import UNKNOWN, OpenSet


def draw(scored: Scored) -> None:
    """Write ``confusion.png``, whose last row and column are what is unknown, and ``predictions.png``."""
    head, computed = scored.head, scored.computed
    assert isinstance(head.task, OpenSet)
    names = (*head.task.target.class_names, UNKNOWN)
    last = len(names) - 1
    truth = computed["labels"].where(computed["known"], last)
    predicted = computed["predicted"].where(computed["confidence"] >= head.threshold, last)
    counts = torch.bincount((truth * len(names) + predicted).cpu(), minlength=len(names) ** 2)
    plot_confusion(counts.view(len(names), -1).numpy(), names, scored.plots / "confusion.png")

    batch, output = scored.predict(scored.spread(SAMPLES))
    truths = head.target(batch)
    assert truths is not None
    chances, guesses = head.probabilities(output.logits).max(1)
    kept = head.task.confidence(head, HeadOutput(output.logits, output.hidden)) >= head.threshold.cpu()
    shown = [names[i] if keep else UNKNOWN for i, keep in zip(guesses.tolist(), kept.tolist(), strict=True)]
    right = [names[min(i, last)] for i in truths.tolist()]
    samples = zip(scored.shown(batch), right, shown, chances.tolist(), scored.titles(batch), strict=True)
    label_sheet(list(samples), scored.plots / "predictions.png")
