"""Scores of a classifier that also meets images of no known class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_vision.metrics.base import Scores
from lightning_vision.metrics.ranking import auroc

UNKNOWN_ROW = -1


class OpenSetScores(Scores):
    """How well known images are classified, and how well unknown ones are told from them.

    The confidence of a row is its largest probability, or what the caller gives, such as the norm of the features
    (Dhamija et al. 2018, "Reducing Network Agnostophobia").

    Args:
        unknown: Target value of unknown rows, or None.
        ignore_index: Target value of rows that are left out, or None.
    """

    confidence: list[Tensor]
    predicted: list[Tensor]
    truth: list[Tensor]

    def __init__(self, unknown: int | None = UNKNOWN_ROW, ignore_index: int | None = None) -> None:
        super().__init__()
        self.unknown = unknown
        self.ignore_index = ignore_index
        self.add_rows("confidence")
        self.add_rows("predicted", dtype=torch.int64)
        self.add_rows("truth", dtype=torch.int64)

    def update(
        self, logits: Tensor, target: Tensor, loss: Tensor | None = None, confidence: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            logits: ``(B, C)``.
            target: ``(B,)`` class ids, or ``unknown``, or ``ignore_index``.
            loss: Mean loss of the batch; it is weighted by the number of rows that are not ignored.
            confidence: ``(B,)``, larger = rather known; None: the largest probability.
        """
        largest, predicted = logits.detach().float().softmax(1).max(1)
        self.confidence.append(largest if confidence is None else confidence.detach().float())
        self.predicted.append(predicted)
        self.truth.append(target.long())
        ignored = target == self.ignore_index if self.ignore_index is not None else torch.zeros_like(target).bool()
        self.add_loss(loss, (~ignored).sum())

    def compute(self) -> dict[str, Tensor]:
        """Return the figures as one flat dict; those that are undefined are NaN.

        ``loss``. ``known_accuracy``: of the known rows. ``unknown_auroc``: the share of pairs of a known and an unknown
        row in which the known one is more confident. ``oscr``: the area under the open-set classification rate curve
        (Dhamija et al. 2018): the same share, where known rows that are classified wrongly count as lost. Of all rows
        that are not ignored: ``confidence``, ``predicted``, ``labels``, ``known``.
        """
        confidence, predicted, truth, known = self._rows()
        hit = predicted == truth
        right = known & hit
        accuracy = right.sum().double() / known.sum()
        apart = auroc(confidence[right | ~known], known[right | ~known])
        return {
            "loss": self.mean_loss(),
            "known_accuracy": accuracy,
            "unknown_auroc": auroc(confidence, known),
            # Without any row classified rightly nothing is left to rank, and all is lost.
            "oscr": torch.zeros_like(apart) if accuracy == 0 and not known.all() else accuracy * apart,
            "confidence": confidence,
            "predicted": predicted,
            "labels": truth,
            "known": known,
        }

    def _rows(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        confidence, predicted, truth = (self.rows(name) for name in ("confidence", "predicted", "truth"))
        if self.ignore_index is not None:
            counted = truth != self.ignore_index
            confidence, predicted, truth = confidence[counted], predicted[counted], truth[counted]
        known = torch.ones_like(truth, dtype=torch.bool) if self.unknown is None else truth != self.unknown
        return confidence, predicted, truth, known


def at_threshold(computed: Mapping[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """Return the figures of taking rows for known from a threshold on.

    ``known_kept``: the share of known rows that are taken for known. ``unknown_recall``: the share of unknown rows that
    are not. ``open_set_f1``: the mean F1 of the known classes in the truth or the predictions, where unknown rows taken
    for known are false positives, and known rows that are rejected are missed. Those that are undefined are NaN.

    Args:
        computed: What ``OpenSetScores.compute`` returned.
        threshold: Confidence from which on a row is taken for known.
    """
    confidence, predicted, labels, known = (computed[key] for key in ("confidence", "predicted", "labels", "known"))
    kept = confidence >= threshold
    right = labels[known & kept & (predicted == labels)]
    classes = max((int(ids.max()) + 1 for ids in (labels[known], predicted) if len(ids)), default=0)
    hit, true, taken = (
        torch.bincount(ids, minlength=classes).double() for ids in (right, labels[known], predicted[kept])
    )
    return {
        "known_kept": (known & kept).sum().double() / known.sum(),
        "unknown_recall": (~known & ~kept).sum().double() / (~known).sum(),
        "open_set_f1": (2 * hit / (true + taken)).nanmean(),
    }


def rejection_threshold(confidence: Tensor, known: Tensor, keep: float = 0.95) -> float:
    """Find the confidence that tells known from unknown rows best.

    Args:
        confidence: ``(N,)``, larger = rather known.
        known: ``(N,)`` bool.
        keep: Share of the known rows that are kept where there are no unknown ones.

    Returns:
        Where the share of known rows that are kept and that of unknown rows that are rejected have the largest sum, in
        the middle between two rows; 0 without known rows.
    """
    confidence = confidence.double()
    if not known.any():
        return 0.0
    if known.all():
        return float(confidence.quantile(1 - keep))
    levels = confidence.unique()
    cuts = torch.cat([levels[:1], (levels[1:] + levels[:-1]) / 2])
    kept = 1 - torch.searchsorted(confidence[known].sort().values, cuts).double() / known.sum()
    rejected = torch.searchsorted(confidence[~known].sort().values, cuts).double() / (~known).sum()
    return float(cuts[(kept + rejected).argmax()])
