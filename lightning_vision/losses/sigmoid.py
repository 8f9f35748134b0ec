"""Sigmoid cross-entropy: every class is a question of its own, yes or no."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.losses.base import Loss, at_least_float32, logit_of
from lightning_vision.losses.class_weights import per_class
from lightning_vision.types import UNKNOWN, Between


def one_vs_rest(logits: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Return what is true of every class of every sample, and which of it counts.

    Args:
        logits: ``(B, C)``.
        target: Class ids ``(B,)``, or for multilabel ``(B, C)`` of 0 and 1, with 255 for unknown; of mixed images
            numbers in [0, 1] for both.
        ignore_index: Class id of samples to leave out, or None. Of multilabel it is always 255.

    Returns:
        0 or 1, or what lies between, ``(B, C)`` of the logits' type, 0 where it does not count; and bool ``(B, C)``.
    """
    if target.shape == logits.shape:
        counted = target != UNKNOWN
        return target.where(counted, 0).to(logits.dtype), counted
    target = target.long()
    counted = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    truth = F.one_hot(target.where(counted, 0), logits.shape[1]).to(logits.dtype)
    return truth, counted[:, None].expand_as(logits)


class SigmoidCrossEntropyLoss(Loss):
    """Binary cross-entropy of the sigmoid of every logit, averaged over the ``B * C`` entries that count.

    For multilabel, and for classification as one class against the rest. With ``t`` the supervision of an entry, 1 or 0
    unless smoothed, ``p`` the sigmoid of its logit, ``w`` and ``pos_weight`` the numbers of its class and ``H`` the
    entropy of ``(p, 1 - p)``::

        bce     = -w * (pos_weight * t * log p + (1 - t) * log(1 - p))
        robust  = (1 - robust_lambda) * bce + robust_lambda / 2
        penalty = confidence_penalty * (log 2 - H) / log 2
        loss    = weight * mean(robust + penalty)

    Of mixed images ``t`` is the share of the label, or the probability of the class. The mean is over the number of
    entries, not over the sum of the class weights. Entries of a multilabel target that
    are unknown (255), and samples whose class is ``ignore_index``, do not count.

    Args:
        num_classes: Number of classes.
        class_names: Name of every class, by id.
        ignore_index: Target value that counts for nothing, or None.
        pos_weight: Factor of the positives of every class, as a list in the order of the ids, or by name, where classes
            that are not named have 1. None: 1 for all.
        class_weights: Weight of the entries of every class, positive or negative; given as ``pos_weight`` is.
        weight: Factor of the whole loss.
        robust_lambda: Share of the constant 1/2 in the loss, in [0, 1]; for noisy labels.
        confidence_penalty: Weight of the penalty on predictions of low entropy; for noisy labels.
        label_smoothing: Share, in [0, 1), by which the supervision is moved towards that of ``smoothed_to``: ``t``
            becomes ``(1 - label_smoothing) * t + label_smoothing * s``.
        smoothed_to: ``half``: ``s`` is 1/2, nothing known of the class; ``uniform``: one over the number of classes, as
            for the softmax, and as timm and mmpretrain do where one class an image is learned by sigmoids (RSB).

    Raises:
        ConfigError: If weights do not go with the classes.
    """

    tasks: ClassVar[tuple[str, ...]] = ("multilabel", "classification")
    soft_targets: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        pos_weight: list[float] | dict[str, float] | None = None,
        class_weights: list[float] | dict[str, float] | None = None,
        weight: Annotated[float, Between(0)] = 1.0,
        robust_lambda: Annotated[float, Between(0, 1)] = 0.0,
        confidence_penalty: Annotated[float, Between(0)] = 0.0,
        label_smoothing: Annotated[float, Between(0, 1, high_open=True)] = 0.0,
        smoothed_to: Literal["half", "uniform"] = "half",
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.weight = weight
        self.robust_lambda = robust_lambda
        self.confidence_penalty = confidence_penalty
        self.label_smoothing = label_smoothing
        self.smoothed_to = 1 / 2 if smoothed_to == "half" else 1 / num_classes
        self.pos_weight: Tensor | None
        self.class_weights: Tensor | None
        for option, given in (("pos_weight", pos_weight), ("class_weights", class_weights)):
            numbers = None if given is None else torch.tensor(per_class(given, self.class_names, option))
            # Not in the state dict: they are settings, and a checkpoint holds the config.
            self.register_buffer(option, numbers, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: ``(B, C)``.
            target: Class ids ``(B,)``, or for multilabel ``(B, C)`` of 0 and 1, 255 for unknown; of mixed images
                numbers in [0, 1] for both.
        """
        logits = at_least_float32(logits)
        truth, counted = one_vs_rest(logits, target, self.ignore_index)
        loss = F.binary_cross_entropy_with_logits(
            logits,
            (1 - self.label_smoothing) * truth + self.label_smoothing * self.smoothed_to,
            weight=None if self.class_weights is None else self.class_weights.to(logits.dtype),
            pos_weight=None if self.pos_weight is None else self.pos_weight.to(logits.dtype),
            reduction="none",
        )
        loss = (1 - self.robust_lambda) * loss + self.robust_lambda / 2
        if self.confidence_penalty:
            size = logits.abs()
            entropy = F.softplus(-size) + size * (-size).sigmoid()
            loss = loss + self.confidence_penalty * (1 - entropy / math.log(2))
        return self.weight * loss.where(counted, 0.0).sum() / counted.sum().clamp(min=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the sigmoid of logits ``(B, C)``: one probability a class, which need not sum to 1."""
        return logits.sigmoid()

    def logits(self, probabilities: Tensor) -> Tensor:
        """Return the logits ``(B, C)`` of these sigmoids."""
        return logit_of(probabilities)
