"""Focal loss: cross-entropy in which easy samples and pixels count little."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.errors import ConfigError
from lightning_vision.losses.base import Loss, at_least_float32
from lightning_vision.losses.class_weights import per_class
from lightning_vision.losses.sigmoid import one_vs_rest
from lightning_vision.types import Between


class FocalLoss(Loss):
    """Focal loss (Lin et al., ICCV 2017), averaged over what counts: samples, pixels, or entries of multilabel.

    With ``p_t`` the probability of the truth, the softmax's for one class a sample or pixel and the sigmoid's for
    multilabel::

        loss = weight * mean(alpha_t * (1 - p_t) ** gamma * -log p_t)

    ``gamma=0`` without ``alpha`` is cross-entropy. The mean is over the count, not over the sum of ``alpha_t``. (The
    paper divides by the number of anchors that hold an object, of which there are none here.)

    Args:
        num_classes: Number of classes.
        class_names: Name of every class, by id.
        ignore_index: Target value that counts for nothing, or None.
        alpha: What rebalances the classes. None: all weigh the same. One number in [0, 1]: the weight of the
            foreground, ids from 1 on, and ``1 - alpha`` that of class 0, the background, which for two classes is the
            paper's ``alpha_t``; for multilabel: the weight of positives, and ``1 - alpha`` that of negatives. A list by
            id, or a mapping by name where the others weigh 1: the weight of every class, for multilabel of its
            positives and negatives alike. The usual 0.25 suits an object against its background; it is not the default,
            because it would weigh class 0 three times the others also where class 0 is a class like any other.
        gamma: From 0 on; how much easy samples are held down.
        weight: Factor of the whole loss.

    Raises:
        ConfigError: If alpha is out of its range or does not go with the classes.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "segmentation", "multilabel")

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        alpha: Annotated[float, Between(0, 1)] | list[float] | dict[str, float] | None = None,
        gamma: Annotated[float, Between(0)] = 2.0,
        weight: Annotated[float, Between(0)] = 1.0,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.gamma = gamma
        self.weight = weight
        self.positive = float(alpha) if isinstance(alpha, int | float) else None
        self.alpha: Tensor | None
        self.register_buffer("alpha", self._by_class(alpha), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: ``(B, C)`` or ``(B, C, H, W)``.
            target: Class ids ``(B,)`` or ``(B, H, W)``; for multilabel ``(B, C)`` of 0 and 1, 255 for unknown.
        """
        logits = at_least_float32(logits)
        if target.shape == logits.shape:
            loss, counted = self._sigmoid(logits, target)
        else:
            loss, counted = self._softmax(logits, target.long())
        return self.weight * loss.sum() / counted.sum().clamp(min=1)

    def _softmax(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        ignore = -100 if self.ignore_index is None else self.ignore_index
        counted = target != ignore
        # Exactly 0, with no gradient, where the target is ignored; so is its product with anything.
        nll = F.cross_entropy(logits, target, ignore_index=ignore, reduction="none")
        loss = self._focus(-torch.expm1(-nll)) * nll
        return loss if self.alpha is None else self.alpha.to(loss.dtype)[target.where(counted, 0)] * loss, counted

    def _sigmoid(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        truth, counted = one_vs_rest(logits, target, self.ignore_index)
        nll = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        loss = self._focus(logits.sigmoid() * (1 - truth) + (-logits).sigmoid() * truth) * nll
        if self.positive is not None:
            loss = (self.positive * truth + (1 - self.positive) * (1 - truth)) * loss
        elif self.alpha is not None:
            loss = self.alpha.to(loss.dtype) * loss
        return loss.where(counted, 0.0), counted

    def _focus(self, missing: Tensor) -> Tensor | float:
        """``(1 - p_t) ** gamma`` of ``1 - p_t``."""
        if self.gamma == 0:
            return 1.0
        # At 0 a power below 1 has an infinite slope, and infinity times 0 is NaN.
        return missing.clamp(min=torch.finfo(missing.dtype).tiny) ** self.gamma

    def _by_class(self, alpha: float | list[float] | dict[str, float] | None) -> Tensor | None:
        if alpha is None:
            return None
        if not isinstance(alpha, int | float):
            return torch.tensor(per_class(alpha, self.class_names, "alpha"))
        if not 0 <= alpha <= 1:
            raise ConfigError(
                "loss.alpha is the weight of the foreground, and 1 - alpha that of the background.",
                given=alpha,
                expected="a number from 0 to 1, one number for every class, or null",
                override="loss.alpha=0.25",
            )
        return torch.tensor([1 - alpha] + [float(alpha)] * (self.num_classes - 1))
