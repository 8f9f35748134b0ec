"""Scores of any number of labels an image."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vision.metrics.ranking import MAX_STORED, Ranking
from lightning_vision.types import UNKNOWN


class MultilabelScores(Ranking):
    """Average precision, AUROC, F1, exact match and Hamming accuracy of one pass over a split, and the mean loss.

    Args:
        num_labels: Number of labels L.
        thresholds: ``(L,)`` probabilities from which on a label is predicted; None: 0.5 for all.
        max_stored: Probabilities, rows times labels, up to which a process stores them all and AUROC and average
            precision are exact; from then on they come from a histogram of the log-odds.
    """

    counts: Tensor
    exact: Tensor
    thresholds: Tensor

    def __init__(self, num_labels: int, thresholds: Tensor | None = None, max_stored: int = MAX_STORED) -> None:
        super().__init__()
        self.num_labels = num_labels
        given = torch.full((num_labels,), 0.5) if thresholds is None else thresholds.detach().float()
        self.register_buffer("thresholds", given, persistent=False)
        self.add_ranking(num_labels, max_stored)
        self.add_sum("counts", (4, num_labels))  # true positives, false positives, false negatives, true negatives
        self.add_sum("exact", (2,))  # images with all known labels right, images with a known label

    def update(self, logits: Tensor, target: Tensor, loss: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: ``(B, L)``.
            target: ``(B, L)`` 1 present, 0 absent, 255 unknown: left out.
            loss: Mean loss of the batch; it is weighted by the number of known entries.
        """
        probabilities = logits.float().sigmoid()
        self.rank(probabilities, target.to(torch.uint8))
        known = target != UNKNOWN
        predicted = probabilities >= self.thresholds
        present = target == 1
        wrong = (predicted != present) & known
        self.counts += torch.stack(
            [predicted & present, predicted & wrong, present & wrong, ~(predicted | present) & known]
        ).sum(1)
        any_known = known.any(1)
        self.exact += torch.stack([any_known & ~wrong.any(1), any_known]).sum(1)
        self.add_loss(loss, known.sum())

    def compute(self) -> dict[str, Tensor]:
        """Return the figures as one flat dict.

        ``loss``. ``mean_average_precision``: mean over the labels with positives; ``auroc``: mean over those with
        positives and negatives. At the thresholds: ``f1_macro``, over the labels in the truth or the predictions;
        ``f1_micro``; ``exact_match``: share of the images with all known labels right; ``hamming_accuracy``: share of
        known entries that are right. By label ``(L,)``: ``average_precision``, ``f1``, and ``support``, the positives.
        Undefined figures are NaN. While rows are stored: ``probabilities`` and ``truth``, ``(N, L)``.
        """
        areas, precisions = self.ranked()
        hit, alarm, missed, rejected = self.counts.double()
        f1 = 2 * hit / (2 * hit + alarm + missed)
        return {
            "loss": self.mean_loss(),
            "mean_average_precision": precisions.nanmean(),
            "auroc": areas.nanmean(),
            "f1_macro": f1.nanmean(),
            "f1_micro": 2 * hit.sum() / (2 * hit + alarm + missed).sum(),
            "exact_match": self.exact[0].double() / self.exact[1],
            "hamming_accuracy": (hit + rejected).sum() / self.counts.sum(),
            "average_precision": precisions,
            "f1": f1,
            "support": self.counts[0] + self.counts[2],
            **self.stored_rows(),
        }
