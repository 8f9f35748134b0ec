"""How far a figure could lie elsewhere by the choice of the test images: intervals by resampling them.

Whole images are drawn with replacement, as often as there are (Efron 1979), and the figures are taken of each draw; the
interval is what the middle 95 % of the draws span (percentile interval). All figures of a task share their draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lightning_vision.metrics.base import Scores
from lightning_vision.metrics.confusion import Counts, add_counts, confusion_cells, count

DRAWS, SHARE = 1000, 0.95
# What stands behind the keys of a figure's lower and upper end.
ENDS = ("ci95_low", "ci95_high")
# Numbers of a block of the work: 8 MB in float64, about what lies in a processor's cache.
BLOCK = 2**20
# Up to which a thousand draws take a few seconds: images, and numbers that are ranked, rows times columns.
MOST_IMAGES, MOST_RANKED = 20_000, 500_000

Interval = tuple[float, float]
Drawn = TypeVar("Drawn")


class PerImageConfusion(Scores):
    """Hits, targets and predictions of each class in each image of a pass, as long as there are few.

    Args:
        num_classes: Number of classes C.
        ignore_index: Target value that is left out, or None.
        max_images: Images of the whole pass up to which the counts are kept.
        max_bytes: Bytes of the counts of the whole pass up to which they are kept; four a number.
    """

    counts: list[Tensor]
    images: Tensor

    def __init__(
        self, num_classes: int, ignore_index: int | None = None, max_images: int = MOST_IMAGES, max_bytes: int = 2**28
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.most = min(max_images, max_bytes // (4 * 3 * num_classes))
        self._seen = 0
        self._last: tuple[Tensor, Tensor] | None = None
        self._latest: Tensor | None = None
        self.add_rows("counts", (3, num_classes), torch.int32)
        self.add_sum("images", ())

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            logits: ``(B, C, H, W)``, or class ids of the target's shape.
            target: ``(B, H, W)`` class ids or ``ignore_index``.
        """
        self._seen += len(target)
        self.images += len(target)
        self._last = (logits if logits.shape == target.shape else logits.max(1).indices, target)
        self._latest = None
        if self._seen > self.most:
            self.counts.clear()
        else:
            self.counts.append(self.latest)

    @property
    def latest(self) -> Tensor:
        """The counts of the last batch, int32 ``(B, 3, C)``, counted when they are asked for if they are not kept."""
        if self._latest is None:
            assert self._last is not None
            self._latest = _per_image(*self._last, self.num_classes, self.ignore_index)
        return self._latest

    def compute(self) -> Tensor | None:
        """Return the counts int32 ``(N, 3, C)``, in the order of ``Counts``; None if there were too many images."""
        return self.rows("counts") if self.images <= self.most else None

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        self._seen = 0
        self._last = self._latest = None


def _per_image(predicted: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    cells = confusion_cells(predicted, target, num_classes, ignore_index).flatten(1)
    size = (num_classes + 1) * num_classes
    found = []
    for some in cells.split(max(1, BLOCK // size)):
        counts = torch.zeros(len(some), size, dtype=torch.int64, device=cells.device)
        # One image after another while they lie in the processor's cache; on a GPU all at once.
        if cells.is_cuda:
            add_counts(counts.view(-1), some + torch.arange(len(some), device=cells.device)[:, None] * size)
        else:
            for of_one, image in zip(counts, some, strict=True):
                add_counts(of_one, image)
        matrices = counts.view(-1, num_classes + 1, num_classes)[:, :num_classes]
        if ignore_index is not None and 0 <= ignore_index < num_classes:
            matrices[:, ignore_index] = 0
        hit = matrices.diagonal(dim1=1, dim2=2)
        found.append(torch.stack([hit, matrices.sum(2), matrices.sum(1)], 1).int())
    return torch.cat(found)


def image_intervals(
    counts: Tensor, figures: Mapping[str, Callable[[Counts], Tensor]], draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of figures of the confusion matrix, by resampling images with counts of their own.

    Args:
        counts: ``(N, 3, C)``, of ``PerImageConfusion``.
        figures: By name; from counts ``(draws, C)`` each to ``(draws,)``, such as ``lambda c: iou(c).nanmean(-1)``.
        draws: Draws of N images each.
        seed: Of the draws.

    Returns:
        Lower and upper end of each figure; NaN without images, or where it is undefined in every draw.
    """
    images, width = len(counts), counts.shape[1:].numel()
    if not images:
        return _undefined(figures)
    generator = torch.Generator().manual_seed(seed)
    flat = counts.cpu().flatten(1)
    flat = flat[_own_order(flat)]

    def drawn(size: int) -> Counts:
        times = _times_drawn(images, size, generator).double()
        step = max(1, BLOCK // width)
        total = torch.zeros(size, width, dtype=torch.float64)
        for some, theirs in zip(times.split(step), flat.split(step), strict=True):
            total.addmm_(some.T, theirs.double())
        return Counts(*total.view(size, 3, -1).unbind(1))

    return _intervals(figures, drawn, draws, max(images, width))


def sample_intervals(
    confusion: Tensor, figures: Mapping[str, Callable[[Counts], Tensor]], draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of figures of the confusion matrix, by resampling samples that have one class each.

    Drawing N samples and counting them is drawing the cells of the matrix N times by their share (a multinomial
    distribution): the samples themselves need not be stored, and cells without any are never drawn.

    Args:
        confusion: ``(C, C)`` counts.
        figures: By name; from counts ``(draws, C)`` each to ``(draws,)``, such as ``lambda c: recall(c).nanmean(-1)``.
        draws: Draws.
        seed: Of the draws.

    Returns:
        Lower and upper end of each figure; NaN without samples, or where it is undefined in every draw.
    """
    confusion = confusion.cpu()
    true, predicted = confusion.nonzero().unbind(1)
    if not len(true):
        return _undefined(figures)
    samples, share = int(confusion.sum()), (confusion[true, predicted].double() / confusion.sum()).numpy()
    right = true == predicted
    generator = np.random.default_rng(seed)

    def drawn(size: int) -> Counts:
        cells = torch.from_numpy(generator.multinomial(samples, share, size)).T.contiguous()
        none = cells.new_zeros(len(confusion), size)
        parts = (true[right], cells[right]), (true, cells), (predicted, cells)
        return Counts(*(none.index_add(0, classes, some).T for classes, some in parts))

    return _intervals(figures, drawn, draws, max(len(true), len(confusion)))


def row_intervals(
    figures: Mapping[str, Callable[..., Tensor]], *rows: Tensor, draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of figures of stored rows, such as ``drawn_auroc`` of scores and targets.

    Args:
        figures: By name; from the rows and from how often each of them was drawn, float32 ``(N, draws)``, to
            ``(draws,)``.
        rows: Tensors ``(N, ...)``.
        draws: Draws of N rows each.
        seed: Of the draws.

    Returns:
        Lower and upper end of each figure; NaN without rows, or where it is undefined in every draw.
    """
    size = len(rows[0])
    if not size:
        return _undefined(figures)
    generator = torch.Generator().manual_seed(seed)
    order = _own_order(*rows)
    ordered = [tensor[order].cpu() for tensor in rows]
    of_times = {name: lambda times, figure=figure: figure(*ordered, times) for name, figure in figures.items()}
    return _intervals(of_times, lambda many: _times_drawn(size, many, generator).float(), draws, size)


def _intervals(
    figures: Mapping[str, Callable[[Drawn], Tensor]], drawn: Callable[[int], Drawn], draws: int, width: int
) -> dict[str, Interval]:
    """Draw in blocks, ``width`` numbers a draw, and take all figures of each block."""
    found: dict[str, list[Tensor]] = {name: [] for name in figures}
    at_once = max(1, BLOCK // width)
    for start in range(0, draws, at_once):
        block = drawn(min(at_once, draws - start))
        for name, figure in figures.items():
            found[name].append(figure(block).double())
    return {name: percentiles(torch.cat(parts)) for name, parts in found.items()}


def _undefined(figures: Mapping[str, object]) -> dict[str, Interval]:
    return dict.fromkeys(figures, (math.nan, math.nan))


def percentiles(figures: Tensor, share: float = SHARE) -> Interval:
    """Return the ends of the middle ``share`` of figures ``(draws,)``; draws whose figure is undefined are left out."""
    ends = torch.tensor([(1 - share) / 2, (1 + share) / 2], dtype=figures.dtype)
    low, high = figures.nanquantile(ends).tolist()
    return low, high


def _own_order(*rows: Tensor) -> Tensor:
    """An order of rows ``(N,)`` by what they hold: the draws are the same from whichever process each row came."""
    key = torch.zeros(len(rows[0]), dtype=torch.int64, device=rows[0].device)
    generator = torch.Generator().manual_seed(0)
    for tensor in rows:
        flat = tensor.reshape(len(tensor), -1)
        factors = torch.randint(2**62, flat.shape[1:], generator=generator).to(flat.device)
        step = max(1, BLOCK // max(1, flat.shape[1]))
        for total, some in zip(key.split(step), flat.split(step), strict=True):
            bits = some.float().view(torch.int32) if some.is_floating_point() else some
            total += (bits.long() * factors).sum(1)
    return key.argsort()


def _times_drawn(size: int, draws: int, generator: torch.Generator) -> Tensor:
    """How often each of ``size`` is among as many that are drawn with replacement: int64 ``(size, draws)``."""
    cells = torch.randint(size, (draws, size), generator=generator)
    cells += torch.arange(draws)[:, None] * size
    return count(cells, draws * size).view(draws, size).T.contiguous()
