"""Dataset-level scores from one confusion matrix: counts are added up batch by batch and turned into figures once."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class EpochScores(Metric):
    """Confusion matrix, top-k hits and mean loss of one pass over a split.

    One bincount a batch is all the work; IoU, Dice and accuracies are arithmetic on the matrix at the end of the pass.
    The states are sums, so several processes give exactly the figures of one.

    Args:
        num_classes: Number of classes C.
        ignore_index: Target value that is left out, or None.
        top_k: Count a sample as a hit if its class is among the ``top_k`` largest logits; None switches it off.
    """

    full_state_update = False
    confusion: Tensor
    hits: Tensor
    loss_sum: Tensor
    loss_weight: Tensor

    def __init__(self, num_classes: int, ignore_index: int | None = None, top_k: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.top_k = top_k
        size = (num_classes, num_classes)
        self.add_state("confusion", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("hits", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("loss_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("loss_weight", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor, loss: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: ``(B, C)`` or ``(B, C, H, W)``, or class ids of the target's shape.
            target: ``(B,)`` or ``(B, H, W)`` class ids or ``ignore_index``.
            loss: Mean loss of the batch; it is weighted by the number of counted targets, so that the mean over a
                split does not depend on how it was cut into batches.
        """
        # On CPU max is several times faster than argmax over a channel dimension; both return the first maximum.
        predicted = logits if logits.shape == target.shape else logits.max(1).indices
        classes = self.num_classes
        cell = target.long() * classes + predicted.long()
        if self.ignore_index is not None:
            cell = cell.masked_fill(target == self.ignore_index, classes * classes)
        counts = torch.bincount(cell.flatten(), minlength=classes * classes + 1)[: classes * classes]
        self.confusion += counts.view(classes, classes)
        if self.top_k is not None:
            top = logits.topk(self.top_k, dim=1).indices
            self.hits += (top == target.long().unsqueeze(1)).any(1).sum()
        if loss is not None:
            weight = counts.sum()
            # A batch with nothing to count has loss zero by contract; its weight is zero as well.
            self.loss_sum += loss.detach().double() * weight
            self.loss_weight += weight

    def compute(self) -> dict[str, Tensor]:
        """Return the confusion matrix ``(C, C)`` (rows: truth), the mean loss and the share of top-k hits."""
        total = self.confusion.sum()
        result = {"confusion": self.confusion, "loss": self.loss_sum / self.loss_weight.clamp(min=1)}
        if self.top_k is not None:
            result["top"] = self.hits / total.clamp(min=1)
        return result


def iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class ``(C,)``; NaN where a class is in neither truth nor prediction."""
    matrix = confusion.double()
    hit = matrix.diagonal()
    return hit / (matrix.sum(0) + matrix.sum(1) - hit)


def dice(confusion: Tensor) -> Tensor:
    """Dice coefficient (F1) of each class ``(C,)``; NaN where a class is in neither truth nor prediction."""
    matrix = confusion.double()
    return 2 * matrix.diagonal() / (matrix.sum(0) + matrix.sum(1))


def recall(confusion: Tensor) -> Tensor:
    """Share of each class's targets that were found ``(C,)``; NaN where a class is not in the truth."""
    matrix = confusion.double()
    return matrix.diagonal() / matrix.sum(1)


def accuracy(confusion: Tensor) -> Tensor:
    """Share of all counted targets that were found (micro average)."""
    return confusion.diagonal().sum().double() / confusion.sum().clamp(min=1)
