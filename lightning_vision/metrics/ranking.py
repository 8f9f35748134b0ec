"""Figures of an order: how well scores put the positives before the negatives.

Computed here from counts of positives and negatives at each distinct score, in float64. torchmetrics' functions squash
scores outside [0, 1] through a float32 sigmoid, where different scores become equal; warn of an undefined figure and
call it zero; and need a pass over the batch for each threshold of their binned form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_vision.metrics.base import Scores
from lightning_vision.metrics.confusion import count
from lightning_vision.types import UNKNOWN

# Of stored numbers: 80 MB in float32.
MAX_STORED = 20_000_000
# Bins of equal width in log-odds, as far as float32 tells probabilities from one; all beyond is in the outer bins.
BINS, LOG_ODDS = 1000, 17.0


def auroc(scores: Tensor, positive: Tensor) -> Tensor:
    """Area under the ROC curve: the share of pairs of a positive and a negative in which the positive scores higher.

    Ties count half.

    Args:
        scores: ``(N,)``, larger = rather positive; any range.
        positive: ``(N,)`` bool.

    Returns:
        A float64 scalar; NaN where there are no positives or no negatives.
    """
    return auroc_of_counts(*_counts(scores, positive))


def average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """Average precision: the sum over thresholds of the rise of recall times precision, without interpolation.

    Args:
        scores: ``(N,)``, larger = rather positive; any range.
        positive: ``(N,)`` bool.

    Returns:
        A float64 scalar; NaN where there are no positives.
    """
    return average_precision_of_counts(*_counts(scores, positive))


def drawn_auroc(scores: Tensor, positive: Tensor, times: Tensor) -> Tensor:
    """``auroc`` of many draws of the rows at once, for intervals.

    Args:
        scores: ``(N,)``, larger = rather positive; any range.
        positive: ``(N,)`` bool.
        times: ``(N, draws)``, how often each row is in each draw; float32 is exact up to 16 million rows.

    Returns:
        float64 ``(draws,)``; NaN where there are no positives or no negatives.
    """
    ours, theirs, times_theirs = scores[positive], scores[~positive], times[~positive]
    below, up_to = (_drawn(theirs, times_theirs, ours, up_to) for up_to in (False, True))
    drawn = times[positive].double()
    return (drawn * (below + up_to)).sum(0) / (2 * drawn.sum(0) * times_theirs.sum(0))


def drawn_average_precision(scores: Tensor, positive: Tensor, times: Tensor) -> Tensor:
    """``average_precision`` of many draws of the rows at once, for intervals.

    Args:
        scores: ``(N,)``, larger = rather positive; any range.
        positive: ``(N,)`` bool.
        times: ``(N, draws)``, how often each row is in each draw; float32 is exact up to 16 million rows.

    Returns:
        float64 ``(draws,)``; NaN where there are no positives.
    """
    # The larger score comes first: what is called positive at a score is all up to it.
    ours, drawn = -scores[positive], times[positive]
    found, called = _drawn(ours, drawn, ours), _drawn(-scores, times, ours)
    return (drawn * found.double() / called.clamp(min=1)).sum(0) / drawn.sum(0)


def _drawn(values: Tensor, times: Tensor, at: Tensor, up_to: bool = True) -> Tensor:
    """How often rows with values below each of ``at``, or up to it, were drawn: ``(len(at), draws)``."""
    ordered, order = values.sort()
    total = times.new_zeros(len(values) + 1, times.shape[1])
    torch.cumsum(times[order], 0, out=total[1:])
    return total[torch.searchsorted(ordered, at, right=up_to)]


def auroc_of_counts(positives: Tensor, negatives: Tensor) -> Tensor:
    """``auroc`` from the positives and negatives ``(..., bins)`` at each score, the lowest score first."""
    positives, negatives = positives.double(), negatives.double()
    below = negatives.cumsum(-1) - negatives / 2
    return (positives * below).sum(-1) / (positives.sum(-1) * negatives.sum(-1))


def average_precision_of_counts(positives: Tensor, negatives: Tensor) -> Tensor:
    """``average_precision`` from the positives and negatives ``(..., bins)`` at each score, the lowest score first."""
    positives, negatives = positives.double(), negatives.double()
    found = positives.flip(-1).cumsum(-1).flip(-1)
    alarms = found + negatives.flip(-1).cumsum(-1).flip(-1)
    return (positives * found / alarms.clamp(min=1)).sum(-1) / positives.sum(-1)


def _counts(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Positives and negatives at each distinct score, the lowest first."""
    distinct, place = scores.unique(return_inverse=True)
    return count(place[positive], len(distinct)), count(place[~positive], len(distinct))


class Ranking(Scores):
    """AUROC and average precision of each of several columns of probabilities.

    Exact, from stored rows, up to ``max_stored`` numbers in a process; from then on from histograms of fixed size. All
    processes use histograms if one of them does.
    """

    values: list[Tensor]
    truth: list[Tensor]
    histogram: Tensor

    def add_ranking(self, num_columns: int, max_stored: int) -> None:
        """Add the states.

        Args:
            num_columns: Columns L.
            max_stored: Numbers, rows times columns, up to which rows are stored.
        """
        self.max_stored = max_stored
        self._stored = 0
        self.add_rows("values", (num_columns,))
        self.add_rows("truth", (num_columns,), torch.uint8)
        self.add_sum("histogram", (2, num_columns, BINS))

    def rank(self, values: Tensor, truth: Tensor) -> None:
        """Add a batch.

        Args:
            values: ``(B, L)`` float32, probabilities.
            truth: ``(B, L)`` uint8: 1 positive, 0 negative, 255 unknown.
        """
        self._stored += values.numel()
        self.values.append(values)
        self.truth.append(truth)
        if self._stored > self.max_stored:
            for chunk in zip(self.values, self.truth, strict=True):
                self.histogram += _histogram(*chunk)
            self.values.clear()
            self.truth.clear()

    def ranked(self) -> tuple[Tensor, Tensor]:
        """Return AUROC and average precision of each column, each ``(L,)``; NaN where they are undefined."""
        values, truth = self.rows("values"), self.rows("truth")
        if self.histogram.any():
            negatives, positives = self.histogram + _histogram(values, truth)
            return auroc_of_counts(positives, negatives), average_precision_of_counts(positives, negatives)
        figures = []
        for value, label in zip(values.T.contiguous(), truth.T, strict=True):
            known = label != UNKNOWN
            counts = _counts(value[known], label[known] == 1)
            figures.append(torch.stack([auroc_of_counts(*counts), average_precision_of_counts(*counts)]))
        areas, precisions = torch.stack(figures, 1)
        return areas, precisions

    def stored_rows(self) -> dict[str, Tensor]:
        """Return ``probabilities`` float32 and ``truth`` uint8, ``(N, L)``; nothing where there are too many rows."""
        return {} if self.histogram.any() else {"probabilities": self.rows("values"), "truth": self.rows("truth")}

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        self._stored = 0


def _histogram(values: Tensor, truth: Tensor) -> Tensor:
    """Count negatives and positives of each column by the log-odds of their probabilities: int64 ``(2, L, BINS)``."""
    columns = values.shape[1]
    place = ((values.double().logit() + LOG_ODDS) * (BINS / (2 * LOG_ODDS))).nan_to_num(0).clamp(0, BINS - 1).long()
    cells = (truth.long() * columns + torch.arange(columns, device=values.device)) * BINS + place
    # Unknown entries go into a last cell that is thrown away.
    size = 2 * columns * BINS
    return count(cells.clamp(max=size).flatten(), size + 1)[:size].view(2, columns, BINS)
