"""PolyLoss: cross-entropy with the first term of its expansion in the probability made larger."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.losses.base import Loss, at_least_float32
from lightning_vision.types import Between


class PolyLoss(Loss):
    """Poly-1 (Leng et al., ICLR 2022), averaged over samples or pixels.

    With ``p_t`` the softmax's probability of the true class::

        loss = weight * mean(-log p_t + epsilon * (1 - p_t))

    Of mixed images, with the probabilities ``q`` of the target, as in the paper's code for smoothed labels::

        loss = weight * mean(-sum_k q_k log p_k + epsilon * (1 - sum_k q_k p_k))

    Args:
        num_classes: Number of classes.
        class_names: Name of every class, by id.
        ignore_index: Target value that counts for nothing, or None.
        epsilon: What is added to the factor 1 of ``1 - p_t`` in the expansion of cross-entropy; 0 is cross-entropy. The
            paper uses -1 to 2; below -1 the loss would rise again as ``p_t`` nears 1.
        weight: Factor of the whole loss.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "segmentation")
    soft_targets: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        epsilon: Annotated[float, Between(-1)] = 1.0,
        weight: Annotated[float, Between(0)] = 1.0,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.epsilon = epsilon
        self.weight = weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits ``(B, C)`` or ``(B, C, H, W)`` and class ids ``(B,)`` or ``(B, H, W)``.

        The target may also be probabilities in the shape of the logits, all 0 where ignored.
        """
        if target.is_floating_point():
            return self._soft(at_least_float32(logits), target)
        target = target.long()
        ignore = -100 if self.ignore_index is None else self.ignore_index
        # Exactly 0 where the target is ignored, and so is 1 - p_t = -expm1(-nll).
        nll = F.cross_entropy(at_least_float32(logits), target, ignore_index=ignore, reduction="none")
        loss = nll - self.epsilon * torch.expm1(-nll)
        return self.weight * loss.sum() / (target != ignore).sum().clamp(min=1)

    def _soft(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = logits.log_softmax(1)
        q = target.to(log_p.dtype)
        # Where the target is ignored, all of it is 0.
        loss = self.epsilon * q.sum() - (q * (log_p + self.epsilon * log_p.exp())).sum()
        return self.weight * loss / (q.amax(1) > 0).sum().clamp(min=1)
