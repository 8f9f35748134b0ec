"""A loss: the Brier score."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor
from torch.nn import functional as F

from lightning_vision.losses.base import Loss, valid_rows
from lightning_vision.types import Between


class BrierLoss(Loss):
    """Squared distance of the probabilities to the truth, the mean over images or pixels (Brier, 1950).

    Args:
        num_classes: Number of classes.
        class_names: Name of every class, by id.
        ignore_index: Target value that counts for nothing, or None.
        weight: Factor of the whole loss.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "segmentation")

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        weight: Annotated[float, Between(0)] = 1.0,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.weight = weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return a scalar."""
        rows, truth = valid_rows(logits, target, self.ignore_index)
        distance = (rows.softmax(1) - F.one_hot(truth, self.num_classes)).square().sum()
        return self.weight * distance / max(len(rows), 1)
