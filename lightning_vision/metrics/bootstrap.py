"""How far a figure could lie elsewhere by the choice of the test images: intervals by resampling them.

Whole images are drawn with replacement, as often as there are (Efron 1979), and the figure is taken of each draw; the
interval is what the middle 95 % of the draws span (percentile interval).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lightning_vision.metrics.base import Scores
from lightning_vision.metrics.confusion import confusion_cells, count

DRAWS, SHARE = 1000, 0.95
# Numbers of a block of the work: 128 MB in float64.
BLOCK = 2**24

Interval = tuple[float, float]


class PerImageConfusion(Scores):
    """The confusion matrix of each image of a pass, as long as there are few.

    Args:
        num_classes: Number of classes C.
        ignore_index: Target value that is left out, or None.
        max_images: Images of the whole pass up to which the matrices are kept.
        max_bytes: Bytes of the matrices of the whole pass up to which they are kept; four a number.
    """

    matrices: list[Tensor]
    images: Tensor

    def __init__(
        self, num_classes: int, ignore_index: int | None = None, max_images: int = 2000, max_bytes: int = 2**28
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.most = min(max_images, max_bytes // (4 * num_classes**2))
        self._seen = 0
        self.add_rows("matrices", (num_classes, num_classes), torch.int32)
        self.add_sum("images", ())

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            logits: ``(B, C, H, W)``, or class ids of the target's shape.
            target: ``(B, H, W)`` class ids or ``ignore_index``.
        """
        self._seen += len(target)
        self.images += len(target)
        if self._seen > self.most:
            self.matrices.clear()
            return
        predicted = logits if logits.shape == target.shape else logits.max(1).indices
        self.matrices.append(_per_image(predicted, target, self.num_classes, self.ignore_index))

    def compute(self) -> Tensor | None:
        """Return the matrices int32 ``(N, C, C)``, rows: truth; None if there were too many images to keep them."""
        return self.rows("matrices") if self.images <= self.most else None

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        self._seen = 0


def _per_image(predicted: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    cells = confusion_cells(predicted, target, num_classes, ignore_index).flatten(1)
    size = (num_classes + 1) * num_classes
    # One image after another while they lie in the processor's cache; on a GPU all at once.
    if cells.is_cuda:
        offsets = torch.arange(len(cells), device=cells.device)[:, None] * size
        counts = count((cells + offsets).flatten(), len(cells) * size)
    else:
        counts = torch.stack([count(image, size) for image in cells]) if len(cells) else cells.new_empty(0)
    matrices = counts.int().view(len(cells), num_classes + 1, num_classes)[:, :num_classes]
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        matrices[:, ignore_index] = 0
    return matrices.contiguous()


def image_interval(matrices: Tensor, figure: Callable[[Tensor], Tensor], draws: int = DRAWS, seed: int = 0) -> Interval:
    """Interval of a figure of the confusion matrix, by resampling images with one matrix each.

    Args:
        matrices: ``(N, C, C)``, of ``PerImageConfusion``.
        figure: Confusion matrices ``(draws, C, C)`` to figures ``(draws,)``, such as ``lambda m: iou(m).nanmean(-1)``.
        draws: Draws of N images each.
        seed: Of the draws.

    Returns:
        Lower and upper end; NaN without images, or where the figure is undefined in every draw.
    """
    images, classes = matrices.shape[:2]
    if not images:
        return (torch.nan, torch.nan)
    generator = torch.Generator().manual_seed(seed)
    flat = matrices.cpu().flatten(1)
    flat = flat[_own_order(flat)]
    at_once = max(1, BLOCK // max(images, classes**2))
    found = []
    for start in range(0, draws, at_once):
        times = _times_drawn(images, min(at_once, draws - start), generator)
        total = torch.zeros(len(times), classes**2, dtype=torch.float64)
        for some in range(0, images, step := max(1, BLOCK // classes**2)):
            total += times[:, some : some + step] @ flat[some : some + step].double()
        found.append(figure(total.view(-1, classes, classes)).double())
    return percentiles(torch.cat(found))


def sample_interval(
    confusion: Tensor, figure: Callable[[Tensor], Tensor], draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Interval of a figure of the confusion matrix, by resampling samples that have one class each.

    Drawing N samples and counting them is drawing the cells of the matrix N times by their share (a multinomial
    distribution): the samples themselves need not be stored.

    Args:
        confusion: ``(C, C)`` counts.
        figure: Confusion matrices ``(draws, C, C)`` to figures ``(draws,)``.
        draws: Draws.
        seed: Of the draws.

    Returns:
        Lower and upper end; NaN without samples, or where the figure is undefined in every draw.
    """
    cells = confusion.cpu().flatten()
    used = cells.nonzero().squeeze(1)
    if not len(used):
        return (torch.nan, torch.nan)
    share = cells[used].double() / cells.sum()
    generator = np.random.default_rng(seed)
    at_once = max(1, BLOCK // len(cells))
    found = []
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        drawn = torch.zeros(size, len(cells), dtype=torch.float64)
        drawn[:, used] = torch.from_numpy(generator.multinomial(int(cells.sum()), share.numpy(), size)).double()
        found.append(figure(drawn.view(size, *confusion.shape)).double())
    return percentiles(torch.cat(found))


def row_interval(figure: Callable[..., Tensor], *rows: Tensor, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Interval of any figure of stored rows, such as ``auroc`` of scores and targets: computed anew for each draw.

    Args:
        figure: Rows, drawn alike, to a scalar.
        rows: Tensors ``(N, ...)``.
        draws: Draws of N rows each.
        seed: Of the draws.

    Returns:
        Lower and upper end; NaN without rows, or where the figure is undefined in every draw.
    """
    size = len(rows[0])
    if not size:
        return (torch.nan, torch.nan)
    generator = torch.Generator().manual_seed(seed)
    order = _own_order(*rows)
    found = []
    for _ in range(draws):
        drawn = order[torch.randint(size, (size,), generator=generator).to(order.device)]
        found.append(figure(*(tensor[drawn] for tensor in rows)).double().cpu())
    return percentiles(torch.stack(found))


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
    """How often each of ``size`` is among as many that are drawn with replacement: float64 ``(draws, size)``."""
    drawn = torch.randint(size, (draws, size), generator=generator)
    drawn += torch.arange(draws)[:, None] * size
    return torch.bincount(drawn.flatten(), minlength=draws * size).view(draws, size).double()
