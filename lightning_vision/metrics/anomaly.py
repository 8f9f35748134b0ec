"""Scores of an anomaly detector: one number an image, larger = more anomalous."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vision.metrics.base import Scores
from lightning_vision.metrics.ranking import auroc, average_precision


class AnomalyScores(Scores):
    """AUROC and average precision, and the mean loss."""

    scores: list[Tensor]
    anomalous: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_rows("scores")
        self.add_rows("anomalous", dtype=torch.uint8)

    def update(self, scores: Tensor, target: Tensor, loss: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            scores: ``(B,)``, larger = more anomalous.
            target: ``(B,)`` bool, or 0 and 1: True = anomalous.
            loss: Mean loss of the batch.
        """
        self.scores.append(scores.detach().float())
        self.anomalous.append(target.to(torch.uint8))
        self.add_loss(loss, len(scores))

    def compute(self) -> dict[str, Tensor]:
        """Return ``loss``, ``auroc`` and ``average_precision``; NaN where they are undefined: nothing anomalous."""
        scores, anomalous = self.stored()
        return {
            "loss": self.mean_loss(),
            "auroc": auroc(scores, anomalous),
            "average_precision": average_precision(scores, anomalous),
        }

    def stored(self) -> tuple[Tensor, Tensor]:
        """Return all scores ``(N,)`` and whether they are of anomalies, bool ``(N,)``."""
        return self.rows("scores"), self.rows("anomalous").bool()


def best_f1_threshold(scores: Tensor, target: Tensor) -> float | None:
    """Find the threshold with the largest F1, where a score is positive from the threshold on.

    It lies midway between two neighbouring scores (below all of them it is the lowest score itself); equal scores are
    never parted, and of thresholds with the same F1 the highest is taken: the fewest alarms.

    Args:
        scores: ``(N,)``, larger = rather positive.
        target: ``(N,)`` bool, or 0 and 1.

    Returns:
        The threshold, or None if there are only positives or only negatives.
    """
    positive = target.bool()
    if positive.all() or not positive.any():
        return None
    distinct, place = scores.detach().unique(return_inverse=True)
    hit = torch.bincount(place[positive], minlength=len(distinct)).flip(0).cumsum(0).double()
    called = torch.bincount(place, minlength=len(distinct)).flip(0).cumsum(0)
    best = len(distinct) - 1 - int((2 * hit / (called + positive.sum())).argmax())
    upper = distinct[best]
    if best == 0:
        return upper.item()
    middle = upper / 2 + distinct[best - 1] / 2
    # Nothing lies between neighbouring floats; infinite scores have no middle.
    return (middle if distinct[best - 1] < middle <= upper else upper).item()
