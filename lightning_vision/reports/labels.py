"""The pictures of a classification: confusion matrix, map of the embeddings, sheet of samples."""

from __future__ import annotations

from lightning_vision.reports.confusion import plot_confusion
from lightning_vision.reports.embeddings import plot_embeddings
from lightning_vision.reports.scored import Scored
from lightning_vision.reports.sheet import label_sheet

SAMPLES = 12


def draw(scored: Scored) -> None:
    """Write ``confusion.png``, ``predictions.png`` and, where the decoder tells its embeddings, ``embeddings.png``."""
    names = scored.head.task.target.class_names
    plot_confusion(scored.computed["confusion"].cpu().numpy(), names, scored.plots / "confusion.png")
    if "embeddings" in scored.computed:
        # A counter squeezes what holds a single value.
        predicted, truth = (scored.computed[f"embedded_{name}"].cpu().reshape(-1) for name in ("predicted", "truth"))
        vectors = scored.computed["embeddings"].cpu().reshape(len(truth), -1)
        plot_embeddings(vectors, predicted, truth, names, scored.split, scored.plots / "embeddings.png")
    batch, output = scored.predict(scored.spread(SAMPLES))
    truths = scored.head.target(batch)
    assert truths is not None
    probabilities, predicted = scored.head.probabilities(output.logits).max(1)
    named = [names[i] for i in truths.tolist()]
    guesses = [names[i] for i in predicted.tolist()]
    samples = zip(scored.shown(batch), named, guesses, probabilities.tolist(), scored.titles(batch), strict=True)
    label_sheet(list(samples), scored.plots / "predictions.png")
