"""Lovász-softmax: a surrogate of the mean intersection over union, by sorted errors."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_vision.losses.base import Loss, at_least_float32
from lightning_vision.losses.regions import class_ids, pixels_of_classes
from lightning_vision.types import Between

# Of the errors in [0, 1]; also the number of pixels from which on counting is cheaper than sorting.
BINS = 2**16


class LovaszSoftmaxLoss(Loss):
    """Lovász-softmax of Berman et al. 2018 (https://arxiv.org/abs/1705.08790), the mean over classes.

    The errors of a class are ``1 - p`` at its own pixels and ``p`` at all others, with ``p`` its softmax. From the
    largest error down, each is weighed by what its pixel adds to the Jaccard loss of the pixels so far: with ``g``
    pixels of the class, ``b`` other pixels above this one, and ``l`` of the class that are not above it, ``1 / (g +
    b)`` for a pixel of the class and ``l / ((g + b) (g + b + 1))`` for any other. A class that does not occur in the
    truth, with ``classes: all``, costs its largest error.

    Sorting is exact. On a CPU, in float32, what has 65,536 pixels or more (the batch; the image, with ``per_image``) is
    not sorted, which takes ten times as long as the cross-entropy, but counted in 65,536 bins of the error. A pixel is
    weighed by the mean of two orders of its bin, its pixels of the class first, and last. That makes the loss too small
    by less than the width of a bin, 1.6e-5, and usually by less than the rounding of float32.

    As published, except that images of which every pixel is ignored are left out of the mean over the images; there
    they count as 0.

    Args:
        num_classes: Number of classes.
        class_names: Name of every class, by id.
        ignore_index: Target value that counts for nothing, or None.
        weight: Factor of the whole loss.
        classes: Classes of the mean: ``present``, those that occur in the truth of the batch (of the image, with
            ``per_image``), or ``all``.
        per_image: Take the loss of every image and the mean of them, instead of one loss over all pixels of the batch.
    """

    tasks: ClassVar[tuple[str, ...]] = ("segmentation",)

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        weight: Annotated[float, Between(0)] = 1.0,
        classes: Literal["present", "all"] = "present",
        per_image: bool = False,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.weight = weight
        self.classes = classes
        self.per_image = per_image

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits ``(B, C, H, W)`` and class ids ``(B, H, W)``."""
        p = at_least_float32(logits).softmax(1)
        with torch.no_grad():
            value, slopes = self._evaluate(p, target)
        return self.weight * _WithSlopes.apply(p, value, slopes)

    def _evaluate(self, p: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative by every probability."""
        truth, ignored = class_ids(target, self.ignore_index, self.num_classes)
        pixels = pixels_of_classes(truth, self.num_classes)
        truth = truth.int()
        groups = [slice(i, i + 1) for i in range(len(p))] if self.per_image else [slice(None)]
        # The one time a GPU is waited for: a batch has few of many classes, and each that is left out is a sort less.
        counts = (pixels if self.per_image else pixels.sum(0, keepdim=True)).tolist()
        wanted = [(group, n) for group, n in zip(groups, counts, strict=True) if any(n)]
        value, slopes = p.new_zeros(()), torch.zeros_like(p)
        for group, n in wanted:
            classes = [c for c, pixels_of_class in enumerate(n) if pixels_of_class or self.classes == "all"]
            void = None if ignored is None else ignored[group]
            share = 1 / (len(classes) * len(wanted))
            for c in classes:
                own = (truth[group] == c).to(p.dtype)
                of_class = p[group, c]
                found = _slopes(of_class, own, void) if n[c] else _slopes_of_absent(of_class, void)
                found *= share
                value += (of_class - own).mul_(found).sum()
                slopes[group, c] = found
        return value, slopes


class _WithSlopes(torch.autograd.Function):
    """A value and its derivative by ``p``, both known."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, value: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(slopes)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad * ctx.saved_tensors[0], None, None


def _slopes(p: Tensor, own: Tensor, ignored: Tensor | None) -> Tensor:
    """Return the derivative of one class's loss by its probabilities, in their shape.

    Args:
        p: Probabilities of the class, any shape.
        own: 1 at the pixels of the class, at least one, and 0 at others; floats.
        ignored: The pixels that do not count, or None.
    """
    binned = p.device.type == "cpu" and p.dtype == torch.float32 and p.numel() >= BINS
    return (_slopes_by_bins if binned else _slopes_by_order)(p, own, ignored)


def _slopes_of_absent(p: Tensor, ignored: Tensor | None) -> Tensor:
    """As ``_slopes`` for a class without pixels: all weight lies on the largest probability."""
    flat = (p if ignored is None else p.masked_fill(ignored, -1)).flatten()
    return torch.zeros_like(flat).index_fill_(0, flat.argmax(), 1).view(p.shape)


def _slopes_by_order(p: Tensor, own: Tensor, ignored: Tensor | None) -> Tensor:
    errors = (own - p).abs_()
    if ignored is not None:
        errors.masked_fill_(ignored, -1)
    order = errors.flatten().argsort()
    mine = own.flatten()[order] > 0
    not_above = mine.cumsum(0)
    # g + b: all pixels but those of other classes from here down, which the ignored ones, at the bottom, are among.
    union = torch.arange(len(order) - 1, -1, -1, device=p.device).add_(not_above).to(p.dtype)
    slopes = torch.where(mine, -1 / union, not_above / union / (union + 1))
    return torch.empty_like(slopes).scatter_(0, order, slopes).view(p.shape)


def _slopes_by_bins(p: Tensor, own: Tensor, ignored: Tensor | None) -> Tensor:
    """As ``_slopes_by_order``, but every bin has the mean of two orders: its pixels of the class first, and last."""
    # Others in the first BINS keys and the class's own in the next, both rising with p, which may be a hair above 1.
    keys = p.mul(BINS * (1 - 2**-20)).add_(own, alpha=BINS).int()
    if ignored is not None:
        keys.masked_fill_(ignored, 2 * BINS)
    keys = keys.flatten()
    # NumPy, because torch would call in its threads for every line, and they would wait longer than they work.
    counts = torch.bincount(keys, minlength=2 * BINS + 1).numpy()
    others, mine = counts[:BINS], counts[2 * BINS - 1 : BINS - 1 : -1]  # both by rising error
    not_above = mine.cumsum()
    above = not_above[-1] + others.sum() - others.cumsum()  # g + b at the top of each bin
    below = 1 / (above + others).astype(np.float32)
    not_above = not_above - np.float32(0.5) * mine
    above = 1 / above.astype(np.float32)
    slopes = np.zeros(2 * BINS + 1, np.float32)
    slopes[:BINS] = (not_above.astype(np.float32) * above) * below
    slopes[2 * BINS - 1 : BINS - 1 : -1] = (above + below) * np.float32(-0.5)
    return torch.from_numpy(slopes).index_select(0, keys).view(p.shape)
