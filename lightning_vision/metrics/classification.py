"""Scores of a classifier's probabilities, beside those of its decisions."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vision.metrics.confusion import EpochScores
from lightning_vision.metrics.ranking import MAX_STORED, Ranking
from lightning_vision.metrics.spread import Spread
from lightning_vision.types import UNKNOWN

# Bins of the calibration error, as usual since Guo et al. 2017.
CALIBRATION_BINS = 15
# Embeddings that a process keeps for a picture, at least; at most twice as many.
EMBEDDED = 1000


class ClassificationScores(Ranking, EpochScores):
    """What ``EpochScores`` counts, and AUROC, average precision and calibration error.

    Args:
        num_classes: Number of classes C.
        ignore_index: Target value that is left out, or None.
        top_k: Count a sample as a hit if its class is among the ``top_k`` largest logits; None switches it off.
        max_stored: Probabilities, rows times classes, up to which a process stores them all and AUROC and average
            precision are exact; from then on they come from a histogram of the log-odds.
    """

    calibration: Tensor

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = None,
        top_k: int | None = None,
        max_stored: int = MAX_STORED,
    ) -> None:
        super().__init__(num_classes, ignore_index, top_k)
        self.add_ranking(num_classes, max_stored)
        # Samples, their confidence and their hits in each bin; a confidence of one has a bin of its own.
        self.add_sum("calibration", (3, CALIBRATION_BINS + 1), torch.float64)
        self.embedded = Spread(EMBEDDED)

    def update(self, logits: Tensor, target: Tensor, loss: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: ``(B, C)``.
            target: ``(B,)`` class ids or ``ignore_index``.
            loss: Mean loss of the batch.
        """
        super().update(logits, target, loss)
        target = target.long()
        counted = (
            torch.ones_like(target, dtype=torch.bool) if self.ignore_index is None else target != self.ignore_index
        )
        probabilities = logits.float().softmax(1)
        classes = torch.arange(self.num_classes, device=target.device)
        self.rank(probabilities, (target[:, None] == classes).to(torch.uint8).masked_fill(~counted[:, None], UNKNOWN))
        confidence, predicted = probabilities.max(1)
        add_calibration(self.calibration, confidence, predicted == target, counted)

    def embed(self, vectors: Tensor, logits: Tensor, target: Tensor) -> None:
        """Keep some of the embeddings ``(B, D)`` of a batch, with the predicted and the true class of each."""
        self.embedded.add(vectors, logits.max(1).indices, target)

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        self.embedded.clear()

    def compute(self) -> dict[str, Tensor]:
        """Return the figures as one flat dict.

        ``confusion`` ``(C, C)``, ``loss``, ``top``: as ``EpochScores``. ``auroc``: macro mean of one class against the
        rest; ``average_precision``: its macro mean; both over the classes that occur in the truth, NaN where there are
        none. ``calibration_error``: expected calibration error, 15 bins (Guo et al. 2017), NaN where nothing was
        counted; ``calibration`` ``(3, 16)``: the bins, see ``add_calibration``. While rows are stored:
        ``probabilities`` and ``truth``, one-hot or 255, ``(N, C)``. Of some rows, where they were given,
        ``embeddings`` ``(M, D)``, and ``embedded_predicted`` and ``embedded_truth`` ``(M,)``.
        """
        areas, precisions = self.ranked()
        names = ("embeddings", "embedded_predicted", "embedded_truth")
        return {
            **super().compute(),
            "auroc": areas.nanmean(),
            "average_precision": precisions.nanmean(),
            "calibration_error": calibration_error(self.calibration),
            "calibration": self.calibration.clone(),
            **self.stored_rows(),
            **dict(zip(names, self.embedded.columns, strict=False)),
        }


def add_calibration(bins: Tensor, confidence: Tensor, right: Tensor, counted: Tensor | None = None) -> None:
    """Add rows to bins of equal width.

    Args:
        bins: float64 ``(3, 16)``: rows, the sum of their confidence, and those that are right, in each of 15 bins; a
            confidence of one has a bin of its own.
        confidence: ``(N,)``, 0 to 1.
        right: bool ``(N,)``.
        counted: bool ``(N,)``: rows that are not are left out.
    """
    counted = torch.ones_like(right) if counted is None else counted
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1, dtype=torch.float32, device=confidence.device)
    place = torch.bucketize(confidence, edges, right=True) - 1
    bins.index_add_(1, place, torch.stack([counted, confidence * counted, right & counted]).double())


def calibration_error(bins: Tensor) -> Tensor:
    """Expected calibration error of bins ``(3, 16)`` of ``add_calibration``; NaN where nothing was counted."""
    count, confidence, hits = bins
    return (hits - confidence).abs().sum() / count.sum()
