"""Dataset-level scores from one confusion matrix: counts are added up batch by batch and turned into figures once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_vision.metrics.base import Scores


class EpochScores(Scores):
    """Confusion matrix, top-k hits and mean loss of one pass over a split.

    One counting of a batch is all the work; IoU, Dice and accuracies are arithmetic on the matrix at the end.
    The states are sums, so several processes give exactly the figures of one.

    Args:
        num_classes: Number of classes C.
        ignore_index: Target value that is left out, or None.
        top_k: Count a sample as a hit if its class is among the ``top_k`` largest logits; None switches it off.
    """

    cells: Tensor
    hits: Tensor

    def __init__(self, num_classes: int, ignore_index: int | None = None, top_k: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.top_k = top_k
        # One cell for each pair of classes, and a last row of ignored targets.
        self.add_sum("cells", ((num_classes + 1) * num_classes,))
        self.add_sum("hits", ())

    def update(self, logits: Tensor, target: Tensor, loss: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: ``(B, C)`` or ``(B, C, H, W)``, or class ids of the target's shape.
            target: ``(B,)`` or ``(B, H, W)`` class ids or ``ignore_index``; uint8 is quickest.
            loss: Mean loss of the batch; it is weighted by the number of counted targets, so that the mean over a
                split does not depend on how it was cut into batches.
        """
        # On CPU max is several times faster than argmax over a channel dimension; both return the first maximum.
        predicted = logits if logits.shape == target.shape else logits.max(1).indices
        before = 0 if loss is None else self._ignored()
        add_counts(self.cells, confusion_cells(predicted, target, self.num_classes, self.ignore_index))
        if loss is not None:
            self.add_loss(loss, target.numel() + before - self._ignored())
        if self.top_k is not None:
            hit = (logits.topk(self.top_k, dim=1).indices == target.long().unsqueeze(1)).any(1)
            if self.ignore_index is not None:
                hit &= target != self.ignore_index
            self.hits += hit.sum()

    @property
    def confusion(self) -> Tensor:
        """Confusion matrix ``(C, C)`` so far, rows: truth."""
        return _matrix(self.cells, self.num_classes, self.ignore_index)

    def _ignored(self) -> Tensor | int:
        if self.ignore_index is None:
            return 0
        row = self.ignore_index if 0 <= self.ignore_index < self.num_classes else self.num_classes
        return self.cells[row * self.num_classes : (row + 1) * self.num_classes].sum()

    def compute(self) -> dict[str, Tensor]:
        """Return the confusion matrix ``(C, C)`` (rows: truth), the mean loss and the share of top-k hits."""
        confusion = self.confusion
        result = {"confusion": confusion, "loss": self.mean_loss()}
        if self.top_k is not None:
            result["top"] = self.hits / confusion.sum().clamp(min=1)
        return result


def confusion_counts(predicted: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """Count the pairs of truth and prediction.

    Args:
        predicted: ``(...)`` class ids in [0, C).
        target: ``(...)`` class ids in [0, C) or ``ignore_index``.
        num_classes: C.
        ignore_index: Target value that is left out, or None.

    Returns:
        int64 ``(C, C)``, rows: truth.
    """
    cells = confusion_cells(predicted, target, num_classes, ignore_index)
    return _matrix(count(cells, (num_classes + 1) * num_classes), num_classes, ignore_index)


def _matrix(cells: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    # A copy: what is counted later must not show in it.
    confusion = cells.view(num_classes + 1, num_classes)[:num_classes].clone()
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        confusion[ignore_index] = 0
    return confusion


def confusion_cells(predicted: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Number the cells of a matrix ``(C + 1, C)`` by truth and prediction; the last row is that of ignored targets.

    An ``ignore_index`` that is one of the classes has its own row. Counting ignored targets in a row that is thrown
    away takes a fraction of the time of looking for them first with a mask.
    """
    # The fewest bytes that hold the cells: every pass over a batch of masks costs by its bytes. Labels are too few for
    # a conversion to pay.
    small = target.ndim > 1 and (num_classes + 1) * num_classes <= 2**15
    narrow = torch.int16 if small else torch.int64
    if ignore_index is None or 0 <= ignore_index < num_classes:
        truth = target if target.dtype == torch.uint8 else target.to(narrow)
    elif target.dtype == torch.uint8:
        truth = target.clamp(max=min(num_classes, 255))
    else:
        truth = torch.where(target == ignore_index, num_classes, target).to(narrow)
    return torch.add(predicted.to(narrow), truth, alpha=num_classes)


def count(cells: Tensor, num_cells: int) -> Tensor:
    """Count the numbers in [0, ``num_cells``): int64 ``(num_cells,)``."""
    counts = torch.zeros(num_cells, dtype=torch.int64, device=cells.device)
    add_counts(counts, cells)
    return counts


def add_counts(counts: Tensor, cells: Tensor) -> None:
    """Add to ``counts`` int64 ``(n,)`` how often each of the numbers in [0, n) is in ``cells``, of any shape."""
    cells = cells.flatten()
    if cells.is_cuda or len(cells) < len(counts):
        # Where bincount would read the smallest and the largest number back from the device to size its result, or
        # zero and add far more cells than there are numbers.
        counts.scatter_add_(0, cells.long(), torch.ones_like(cells, dtype=torch.int64))
    else:
        counts += torch.bincount(cells, minlength=len(counts))


class Counts(NamedTuple):
    """What most figures need of a confusion matrix, each ``(..., C)``.

    Attributes:
        hit: Targets of each class that were found.
        true: Targets of each class.
        predicted: Predictions of each class.
    """

    hit: Tensor
    true: Tensor
    predicted: Tensor


# Figures of confusion matrices (..., C, C), rows: truth, or of their counts. Integers are exact in float64.


def counts_of(confusion: Tensor | Counts) -> Counts:
    """Return the counts, in float64, of a confusion matrix ``(..., C, C)``, or those that are given."""
    if isinstance(confusion, Counts):
        return Counts(*(values.double() for values in confusion))
    matrix = confusion.double()
    return Counts(matrix.diagonal(dim1=-2, dim2=-1), matrix.sum(-1), matrix.sum(-2))


def iou(confusion: Tensor | Counts) -> Tensor:
    """Intersection over union of each class ``(..., C)``; NaN where a class is in neither truth nor prediction."""
    hit, true, predicted = counts_of(confusion)
    return hit / (true + predicted - hit)


def dice(confusion: Tensor | Counts) -> Tensor:
    """Dice coefficient (F1) of each class ``(..., C)``; NaN where a class is in neither truth nor prediction."""
    hit, true, predicted = counts_of(confusion)
    return 2 * hit / (true + predicted)


def recall(confusion: Tensor | Counts) -> Tensor:
    """Share of each class's targets that were found ``(..., C)``; NaN where a class is not in the truth."""
    hit, true, _ = counts_of(confusion)
    return hit / true


def precision(confusion: Tensor | Counts) -> Tensor:
    """Share of each class's predictions that are right ``(..., C)``; NaN where a class was never predicted."""
    hit, _, predicted = counts_of(confusion)
    return hit / predicted


def accuracy(confusion: Tensor | Counts) -> Tensor:
    """Share of all counted targets that were found ``(...)`` (micro average); zero where nothing was counted."""
    hit, true, _ = counts_of(confusion)
    return hit.sum(-1) / true.sum(-1).clamp(min=1)


def frequency_weighted_iou(confusion: Tensor | Counts) -> Tensor:
    """Mean of the classes' IoU, weighted by their share of the truth ``(...)`` (Long et al. 2015).

    Classes that are not in the truth have no weight. NaN where nothing was counted.
    """
    counts = counts_of(confusion)
    return (iou(counts).nan_to_num(0) * counts.true).sum(-1) / counts.true.sum(-1)
