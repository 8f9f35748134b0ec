"""Deep SAD: normal images towards the centre, known anomalies away from it."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lightning_vision.losses.base import Loss, at_least_float32
from lightning_vision.losses.deep_svdd import NORMAL, mean_over
from lightning_vision.types import Between

EPSILON = 1e-6  # of the authors' code: keeps the inverse of a score of 0 finite


class DeepSADLoss(Loss):
    """Deep SAD (Ruff et al., ICLR 2020) on scores, the squared distances from the centre.

    ``weight * mean(t)`` with ``t = score`` for normal samples and ``t = eta / (score + 1e-6)`` for anomalous ones,
    which are kept in the training split. The paper's unlabelled samples, which it treats as normal, are rows of the
    normal class here.

    Args:
        num_classes: Number of classes, which is 2.
        class_names: Their names.
        ignore_index: Target value that counts for nothing, or None.
        eta: Weight of an anomalous sample relative to a normal one.
        weight: Factor of the whole loss.
    """

    tasks: ClassVar[tuple[str, ...]] = ("anomaly",)
    trains_on_anomalies: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        eta: Annotated[float, Between(0)] = 1.0,
        weight: Annotated[float, Between(0)] = 1.0,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.eta = eta
        self.weight = weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of scores ``(B,)`` and class ids ``(B,)``, 0 for normal."""
        score = at_least_float32(logits)
        terms = torch.where(target == NORMAL, score, self.eta / (score + EPSILON))
        counts = torch.ones_like(target, dtype=torch.bool) if self.ignore_index is None else target != self.ignore_index
        return self.weight * mean_over(terms, counts)
