"""The pictures of a multi-label run: precision against recall, sheet of samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_vision.reports.files import whole_file
from lightning_vision.reports.palette import class_palette
from lightning_vision.reports.scored import Scored
from lightning_vision.reports.sheet import label_sheet
from lightning_vision.reports.text import FAMILY, class_label, shorten
from lightning_vision.types import TargetSpec

SAMPLES = 12
MOST_CURVES = 12


def draw(scored: Scored) -> None:
    """Write ``precision_recall.png`` and ``predictions.png``."""
    target = scored.head.task.target
    computed = scored.computed
    if "probabilities" in computed:
        probabilities, truth = computed["probabilities"].cpu().numpy(), computed["truth"].cpu().numpy()
        plot_precision_recall(probabilities, truth, target.class_names, scored.plots / "precision_recall.png")
    batch, output = scored.predict(scored.spread(SAMPLES))
    truths = scored.head.target(batch)
    assert truths is not None
    sure = scored.head.probabilities(output.logits)
    chosen = sure >= scored.head.thresholds.cpu()
    # The least certain decision stands for the set.
    certainty = sure.where(chosen, 1 - sure).amin(1)
    samples = []
    for i, (image, title) in enumerate(zip(scored.shown(batch), scored.titles(batch), strict=True)):
        truth, guess = truths[i].numpy(), chosen[i].numpy()
        right = ", ".join(_names(truth == 1, target)) or "none"
        # Names do not fit, so of a set that is wrong the difference is shown.
        different = {"missed": (truth == 1) & ~guess, "wrong": (truth == 0) & guess}
        wrong = [f"{word} {', '.join(_names(which, target))}" for word, which in different.items() if which.any()]
        samples.append((image, right, "; ".join(wrong) or right, certainty[i].item(), title))
    label_sheet(samples, scored.plots / "predictions.png")


def _names(chosen: NDArray[np.bool_], target: TargetSpec) -> list[str]:
    return [name for name, yes in zip(target.class_names, chosen.tolist(), strict=True) if yes]


def plot_precision_recall(
    probabilities: NDArray[np.float32], targets: NDArray[np.uint8], names: Sequence[str], out: Path
) -> None:
    """Draw precision against recall for each label that has positives; of more than 12, the most frequent.

    Args:
        probabilities: ``(N, C)``.
        targets: ``(N, C)`` of 0, 1 and 255 for unknown.
        names: Names of the labels.
        out: PNG file to write.

    Raises:
        DataError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    positives = (targets == 1).sum(0)
    shown = np.sort(np.argsort(-positives, kind="stable")[:MOST_CURVES])
    colors = class_palette(len(names), None)
    figure = Figure(figsize=(8.2, 4.8), layout="constrained")
    axes = figure.subplots()
    for c in shown.tolist():
        if not positives[c]:
            continue
        known = targets[:, c] != 255
        order = np.argsort(-probabilities[known, c], kind="stable")
        hits = np.cumsum(targets[known, c][order] == 1)
        precision, recall = hits / np.arange(1, len(hits) + 1), hits / positives[c]
        label = f"{shorten(class_label(c, names[c]), 24)} ({positives[c]})"
        axes.step(recall, precision, where="post", label=label, color=[v / 255 for v in colors[c]])
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.05))
    axes.grid(alpha=0.3)
    if axes.lines:
        legend = axes.legend(title="label (positives)", fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
        for text in legend.get_texts():
            text.set(family=FAMILY, parse_math=False)
    with whole_file(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
