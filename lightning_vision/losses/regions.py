"""What the losses of regions share: sums over the pixels of every class, and one formula over them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_vision.errors import ConfigError, DataError
from lightning_vision.losses.base import Loss, at_least_float32


class RegionLoss(Loss):
    """One minus an overlap of regions, for every class, and the mean of them.

    With ``p`` the softmax of the logits, ``t`` the truth as 0 and 1, and sums over the pixels that count::

        tp_c   = sum p_c t_c
        miss_c = alpha * sum p_c (1 - t_c) + beta * sum (1 - p_c) t_c
        loss_c = (miss_c / (tp_c + miss_c + smooth)) ^ gamma

    so that ``1 - loss_c = (tp_c + smooth) / (tp_c + miss_c + smooth)`` where ``gamma`` is 1.

    Of mixed images ``t`` lies between 0 and 1. Then ``p_c t_c`` is the smaller of the two, the same where ``t`` is 0 or
    1, so that ``miss_c`` adds up what ``p`` and ``t`` differ by and is 0 at ``p = t``; with the product the loss would
    be least at probabilities of 0 and 1 (Wang, Ning and Blaschko, NeurIPS 2023; Wang et al., MICCAI 2023). With
    ``square_denominator``, of ``t`` as well, the product does as it is.

    Args:
        num_classes: Number of classes.
        class_names: Name of every class, by id.
        ignore_index: Target value that counts for nothing, or None.
        weight: Factor of the whole loss.
        alpha: Weight of the false positives.
        beta: Weight of the false negatives.
        smooth: Number of pixels added to numerator and denominator.
        gamma: Exponent of every class's loss.
        classes: Classes of the mean: ``present``, those that occur in the truth of the batch (of the image, with
            ``per_image``), or ``all``.
        per_image: Sum over every image by itself and take the mean of the images' losses, instead of sums over all
            pixels of the batch. Images without a class to look at are left out.
        include_background: False: class 0 is left out.
        square_denominator: The denominator holds the squares of the probabilities.

    Raises:
        ConfigError: If no class is left.
    """

    tasks: ClassVar[tuple[str, ...]] = ("segmentation",)
    soft_targets: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None,
        ignore_index: int | None,
        weight: float,
        alpha: float,
        beta: float,
        smooth: float,
        gamma: float,
        classes: Literal["present", "all"],
        per_image: bool,
        include_background: bool,
        square_denominator: bool = False,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.weight = weight
        self.alpha = alpha
        self.beta = beta
        self.smooth = smooth
        self.gamma = gamma
        self.classes = classes
        self.per_image = per_image
        self.include_background = include_background
        self.square_denominator = square_denominator
        if num_classes == 1 and not include_background:
            raise ConfigError(
                "Without the background no class is left.",
                given=f"one class, {self.class_names[0]!r}",
                expected="two classes or more",
                override="loss.include_background=true",
            )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits ``(B, C, H, W)`` and class ids ``(B, H, W)``.

        The target may also be probabilities ``(B, C, H, W)``, all 0 where ignored.
        """
        p = at_least_float32(logits).softmax(1)
        if target.is_floating_point():
            tp, predicted, actual = _soft_sums(p, target.to(p.dtype), self.square_denominator)
        else:
            truth, ignored = class_ids(target, self.ignore_index, self.num_classes)
            tp, predicted = _Sums.apply(p, truth, ignored, self.square_denominator)
            actual = pixels_of_classes(truth, self.num_classes)
        if not self.per_image:
            tp, predicted, actual = (x.sum(0, keepdim=True) for x in (tp, predicted, actual))
        counted = actual > 0 if self.classes == "present" else (actual.sum(1, keepdim=True) > 0).expand_as(actual)
        losses = self._of_sums(tp, predicted, actual.to(p.dtype))
        if not self.include_background:
            losses, counted = losses[:, 1:], counted[:, 1:]
        of_images = losses.where(counted, 0).sum(1) / counted.sum(1).clamp(min=1)
        return self.weight * of_images.sum() / counted.any(1).sum().clamp(min=1)

    def _of_sums(self, tp: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
        # Rounding must not make it negative: a power of that is NaN.
        miss = (self.alpha * (predicted - tp) + self.beta * (actual - tp)).clamp(min=0)
        losses = miss / (tp + miss + self.smooth).clamp(min=torch.finfo(tp.dtype).tiny)
        if self.gamma == 1:
            return losses
        # Below an exponent of 1 the slope at 0 is infinite.
        some = losses > 0
        return losses.where(some, 1).pow(self.gamma).where(some, 0)


def class_ids(target: Tensor, ignore_index: int | None, num_classes: int) -> tuple[Tensor, Tensor | None]:
    """Return the truth with the ignored pixels as a class of their own, the last.

    Args:
        target: Class ids ``(B, H, W)``, int64 or uint8.
        ignore_index: Target value that counts for nothing, or None.
        num_classes: Number of classes ``C``.

    Returns:
        Class ids ``(B, H, W)`` int64, ``C`` where they are ignored, and these pixels as bool ``(B, H, W)``, or None if
        there are none.

    Raises:
        DataError: On a CPU, if an id is out of range; elsewhere nothing waits for the device to look.
    """
    on_cpu = target.device.type == "cpu"
    ids = target.long()
    ignored = None if ignore_index is None else target == ignore_index
    if ignored is not None and on_cpu and not ignored.any():
        ignored = None
    if on_cpu and ids.numel():
        low, high = (int(x) for x in (ids if ignored is None else ids.masked_fill(ignored, 0)).aminmax())
        if low < 0 or high >= num_classes:
            raise DataError(
                "A mask holds a class id that is none of the classes.",
                given=low if low < 0 else high,
                expected=f"0 to {num_classes - 1}"
                + ("" if ignore_index is None else f", and {ignore_index} (ignored)"),
                override=f"data.ignore_index={low if low < 0 else high}" if ignore_index is None else None,
            )
    return ids if ignored is None else ids.masked_fill(ignored, num_classes), ignored


def pixels_of_classes(truth: Tensor, num_classes: int) -> Tensor:
    """Return the number of pixels of every class in every image, int64 ``(B, C)``, of ``class_ids`` ``(B, H, W)``."""
    return _sums_of_classes(torch.ones_like(truth), truth, num_classes)


def _soft_sums(p: Tensor, t: Tensor, square: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return, ``(B, C)`` each, the sums of what probabilities and truth share, of the one, and of the other."""
    counted = t.amax(1, keepdim=True) > 0
    if p.device.type != "cpu" or not counted.all():
        p = p * counted
    if square:
        return (p * t).sum((2, 3)), p.square().sum((2, 3)), t.square().sum((2, 3))
    # The smaller of the two is t but for what p lacks of it, which takes half the time.
    actual = t.sum((2, 3))
    return actual - (t - p).relu().sum((2, 3)), p.sum((2, 3)), actual


class _Sums(torch.autograd.Function):
    """The sums of every class and image, ``(B, C)`` each: of ``p`` at the class's own pixels, and of ``p``, or ``p^2``.

    What autograd makes of the same sums keeps and fills several times the memory of ``p``, which is what their time on
    a CPU goes into.
    """

    @staticmethod
    def forward(ctx: Any, p: Tensor, truth: Tensor, ignored: Tensor | None, square: bool) -> tuple[Tensor, Tensor]:
        ctx.square = square
        ctx.save_for_backward(p, truth, ignored)
        at_truth = p.gather(1, _indices(truth, ignored))[:, 0]
        tp = _sums_of_classes(at_truth, truth, p.shape[1])
        if not square and ignored is None:
            return tp, p.sum((2, 3))
        predicted = torch.empty_like(tp)
        for i, image in enumerate(p):  # one at a time stays in the processor's cache
            counted = image.square() if square else image
            if ignored is not None:
                counted = counted * ~ignored[i]
            predicted[i] = counted.sum((1, 2))
        return tp, predicted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_tp: Tensor, by_predicted: Tensor) -> tuple[Tensor, None, None, None]:
        p, truth, ignored = ctx.saved_tensors
        by_predicted = by_predicted[:, :, None, None]
        slopes = p * (2 * by_predicted) if ctx.square else by_predicted.expand_as(p).contiguous()
        index = _indices(truth, ignored)
        slopes.scatter_add_(1, index, by_tp.gather(1, index.flatten(1)).view(index.shape))
        if ignored is not None:
            slopes.mul_(~ignored[:, None])
        return slopes, None, None, None


def _indices(truth: Tensor, ignored: Tensor | None) -> Tensor:
    """Return the class ids as an index of the classes, ``(B, 1, H, W)``; that of ignored pixels is of no meaning."""
    return (truth if ignored is None else truth.masked_fill(ignored, 0))[:, None]


def _sums_of_classes(values: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Sum values ``(B, H, W)`` over the pixels of every class in every image, ``(B, C)``.

    Row by row first: one long sum in float32 loses what is added when it has grown, and on a GPU all threads would add
    to the same few numbers.
    """
    b, h, _ = truth.shape
    width = num_classes + 1
    rows = torch.arange(b * h, device=truth.device).view(b, h, 1) * width
    sums = values.new_zeros(b * h * width).index_add(0, (rows + truth).flatten(), values.flatten())
    return sums.view(b, h, width).sum(1)[:, :num_classes]
