"""The pictures of a multi-label run: curves, reliability, sheets of samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_vision.reports.labels import draw_curves, draw_sheets
from lightning_vision.reports.reliability import draw_of_labels
from lightning_vision.reports.scored import Picture, Scored
from lightning_vision.reports.sheet import LabelSample
from lightning_vision.types import TargetSpec

WORST = (
    "The images with the highest mean loss over their labels, the worst first. Of a set that is wrong the difference "
    "is named; the percentage is that of the least certain label."
)


def draw(scored: Scored) -> list[Picture]:
    """Write ``precision_recall.png``, ``reliability.png``, ``worst.png`` and ``predictions.png``."""
    curves = draw_curves(scored, scored.head.task.target.class_names)
    return [*curves, *draw_of_labels(scored), *draw_sheets(scored, WORST, lambda rows: _samples(scored, rows))]


def _samples(scored: Scored, rows: NDArray[np.int64]) -> list[LabelSample]:
    target = scored.head.task.target
    batch, output = scored.predict(rows)
    truths = scored.head.target(batch)
    assert truths is not None
    sure = scored.head.probabilities(output.logits)
    chosen = sure >= scored.head.thresholds.cpu()
    # The least certain decision stands for the set.
    certainty = sure.where(chosen, 1 - sure).amin(1)
    samples: list[LabelSample] = []
    for i, (image, title) in enumerate(zip(scored.shown(batch), scored.titles(batch), strict=True)):
        truth, guess = truths[i].numpy(), chosen[i].numpy()
        right = ", ".join(_names(truth == 1, target)) or "none"
        # Names do not fit, so of a set that is wrong the difference is shown.
        different = {"missed": (truth == 1) & ~guess, "wrong": (truth == 0) & guess}
        wrong = [f"{word} {', '.join(_names(which, target))}" for word, which in different.items() if which.any()]
        samples.append((image, right, "; ".join(wrong) or right, certainty[i].item(), title))
    return samples


def _names(chosen: NDArray[np.bool_], target: TargetSpec) -> list[str]:
    return [name for name, yes in zip(target.class_names, chosen.tolist(), strict=True) if yes]
