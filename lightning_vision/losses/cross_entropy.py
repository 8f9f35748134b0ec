"""Softmax cross-entropy with the documented ways to cope with imbalance and noisy labels."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.errors import ConfigError, listed
from lightning_vision.losses.base import Loss, at_least_float32, valid_rows
from lightning_vision.losses.class_weights import per_class
from lightning_vision.types import Between


class SoftmaxCrossEntropyLoss(Loss):
    """Cross-entropy of the softmax, averaged over samples or pixels.

    With ``q_i`` the supervision of sample ``i`` (one-hot unless smoothed or spread over similar classes), ``p_i`` the
    softmax of its logits, ``y_i`` its class, ``c`` the number of classes and ``w`` the class weights::

        ce      = sum_i w[y_i] * (-sum_k q_ik log p_ik) / sum_i w[y_i]
        robust  = (1 - robust_lambda) * ce + robust_lambda / c
        penalty = confidence_penalty * mean_i (log c - H(p_i)) / log c
        loss    = weight * (robust + penalty)

    Samples weigh by their own class only, also where the supervision is soft; torch's ``label_smoothing`` together with
    class weights weighs each class of the soft supervision instead.

    The target of mixed images is the probability ``t_ik`` of every class. Then each image or pixel counts as one of
    class ``k``, with all that is said above of such a one, ``t_ik`` times, for every ``k``; so ``sum_k t_ik w[k]`` is
    its weight, also in the denominator, where torch's own mean for probabilities has the number of images.

    Args:
        num_classes: Number of classes.
        class_names: Name of every class, by id.
        ignore_index: Target value that counts for nothing, or None.
        class_weights: One weight a class, as a list in the order of the ids, or by name, where classes that are not
            named weigh 1. None: all weigh the same.
        weight: Factor of the whole loss.
        robust_lambda: Share of the constant ``1 / c`` in the loss, in [0, 1]; for noisy labels.
        confidence_penalty: Weight of the penalty on predictions of low entropy; for noisy labels.
        class_similarities: Similarity of every pair of classes, ``c`` lists of ``c`` numbers; used if the temperature
            is above 0.
        class_similarities_temperature: The supervision of class ``k`` is ``softmax(class_similarities[k] /
            temperature)``.
        label_smoothing: Share of the supervision that is spread evenly over all classes, in [0, 1).

    Raises:
        ConfigError: If weights or similarities do not go with the classes.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "segmentation")
    soft_targets: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        class_weights: list[float] | dict[str, float] | None = None,
        weight: Annotated[float, Between(0)] = 1.0,
        robust_lambda: Annotated[float, Between(0, 1)] = 0.0,
        confidence_penalty: Annotated[float, Between(0)] = 0.0,
        class_similarities: list[list[float]] | None = None,
        class_similarities_temperature: Annotated[float, Between(0)] = 0.0,
        label_smoothing: Annotated[float, Between(0, 1, high_open=True)] = 0.0,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.weight = weight
        self.robust_lambda = robust_lambda
        self.confidence_penalty = confidence_penalty
        self.label_smoothing = label_smoothing
        self.class_weights: Tensor | None
        self.supervision: Tensor | None
        weights = None if class_weights is None else torch.tensor(per_class(class_weights, self.class_names))
        # Not in the state dict: they are settings, and a checkpoint holds the config.
        self.register_buffer("class_weights", weights, persistent=False)
        self.register_buffer(
            "supervision", self._supervision(class_similarities, class_similarities_temperature), persistent=False
        )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits ``(B, C)`` or ``(B, C, H, W)`` and class ids ``(B,)`` or ``(B, H, W)``.

        The target may also be probabilities in the shape of the logits, all 0 where ignored.
        """
        if target.is_floating_point():
            return self.weight * self._mixed(at_least_float32(logits), target)
        soft = self.supervision is not None or (self.label_smoothing > 0 and self.class_weights is not None)
        return self.weight * (self._general if soft or self.confidence_penalty else self._plain)(logits, target)

    def _plain(self, logits: Tensor, target: Tensor) -> Tensor:
        """Hard targets, or smoothed ones without class weights: torch's own kernel."""
        logits, target = at_least_float32(logits), target.long()
        ignore = -100 if self.ignore_index is None else self.ignore_index
        class_weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        total = F.cross_entropy(
            logits,
            target,
            weight=class_weights,
            ignore_index=ignore,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        # The mean is taken here, because torch's is NaN when nothing counts.
        valid = target != ignore
        if class_weights is None:
            mass = valid.sum().clamp(min=1)
            some = valid.any()
        else:
            mass = (class_weights[target.where(valid, 0)] * valid).sum()
            some = mass > 0
            mass = mass.where(some, 1.0)
        return self._robust(total / mass, some)

    def _general(self, logits: Tensor, target: Tensor) -> Tensor:
        rows, target = valid_rows(logits, target, self.ignore_index)
        if len(target) == 0:
            return rows.sum()
        log_p = rows.log_softmax(1)
        if self.supervision is None:
            nll = -log_p.gather(1, target[:, None])[:, 0]
        else:
            nll = -(self.supervision.to(log_p.dtype)[target] * log_p).sum(1)
        if self.label_smoothing:
            nll = (1 - self.label_smoothing) * nll - self.label_smoothing * log_p.mean(1)
        if self.class_weights is None:
            loss = nll.mean()
        else:
            w = self.class_weights.to(log_p.dtype)[target]
            mass = w.sum()
            loss = (w * nll).sum() / mass.where(mass > 0, 1.0)
        loss = self._robust(loss, torch.ones((), dtype=torch.bool, device=loss.device))
        if self.confidence_penalty and self.num_classes > 1:
            largest = math.log(self.num_classes)
            entropy = -(log_p.exp() * log_p).sum(1)
            loss = loss + self.confidence_penalty * ((largest - entropy) / largest).mean()
        return loss

    def _mixed(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target.to(logits.dtype)
        by_class = (1, -1, *[1] * (logits.ndim - 2))
        q = target if self.class_weights is None else target * self.class_weights.to(target.dtype).view(by_class)
        of_rows = q.sum(1, keepdim=True)
        if self.supervision is not None:
            q = torch.einsum("bk...,kc->bc...", q, self.supervision.to(q.dtype))
        if self.label_smoothing:
            q = (1 - self.label_smoothing) * q + self.label_smoothing / self.num_classes * of_rows
        log_p = logits.log_softmax(1)
        mass = of_rows.sum()
        some = mass > 0
        loss = self._robust(-(q * log_p).sum() / mass.where(some, 1.0), some)
        if self.confidence_penalty and self.num_classes > 1:
            counted = target.amax(1) > 0
            entropy = -(log_p.exp() * log_p).sum(1)
            missing = 1 - (entropy * counted).sum() / (counted.sum().clamp(min=1) * math.log(self.num_classes))
            loss = loss + self.confidence_penalty * missing * counted.any()
        return loss

    def _robust(self, loss: Tensor, some: Tensor) -> Tensor:
        if not self.robust_lambda:
            return loss
        return (1 - self.robust_lambda) * loss + self.robust_lambda / self.num_classes * some

    def _supervision(self, similarities: list[list[float]] | None, temperature: float) -> Tensor | None:
        if similarities is None:
            return None
        if len(similarities) != self.num_classes or any(len(row) != self.num_classes for row in similarities):
            raise ConfigError(
                "loss.class_similarities must be a square matrix with one row for every class.",
                given=f"{len(similarities)} rows of {sorted({len(row) for row in similarities})} numbers",
                expected=f"{self.num_classes} x {self.num_classes}, for {listed(self.class_names)}",
                override="loss.class_similarities=null",
            )
        if temperature <= 0:
            return None
        table = torch.tensor(similarities, dtype=torch.float64)
        return (table / temperature).softmax(1).float()
