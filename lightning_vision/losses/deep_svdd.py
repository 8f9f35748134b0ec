"""Deep SVDD: normal images come to lie in a small sphere."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lightning_vision.errors import ConfigError
from lightning_vision.losses.base import Loss, at_least_float32
from lightning_vision.types import Between

NORMAL = 0  # the class id of what is normal; everything else is anomalous
RADIUS_MOMENTUM = 0.1  # weight of a batch in the moving radius


class DeepSVDDLoss(Loss):
    """Deep SVDD (Ruff et al., ICML 2018) on scores, the squared distances from the centre.

    With ``s`` the scores of the normal samples (others do not count; the weight decay is the optimizer's)::

        nu = 0:  weight * mean(s)                                     one-class objective: a hard boundary
        nu > 0:  weight * (R^2 + 1 / nu * mean(max(0, s - R^2)))      soft boundary

    ``R^2``, whose best value is the ``1 - nu`` quantile of the scores, is a moving average of this quantile over
    training batches (momentum 0.1; the authors take that of the last batch). It starts at 0, where the authors keep it
    in their first epochs, and is a buffer: it is saved, resumed and, with several processes, that of the first one.

    Args:
        num_classes: Number of classes, which is 2.
        class_names: Their names.
        ignore_index: Not needed: only class 0 counts.
        nu: Share of normal training samples that may lie outside the sphere; 0 is the hard boundary.
        radius: ``R``, in units of the vectors' distance; None: it is fitted as above. Only with ``nu > 0``.
        weight: Factor of the whole loss.
    """

    tasks: ClassVar[tuple[str, ...]] = ("anomaly",)
    trains_on_anomalies: ClassVar[bool] = False
    squared_radius: Tensor

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        nu: Annotated[float, Between(0, 1, high_open=True)] = 0.0,
        radius: Annotated[float, Between(0)] | None = None,
        weight: Annotated[float, Between(0)] = 1.0,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        if radius is not None and nu == 0:
            raise ConfigError(
                "The radius is that of the soft boundary, and with nu=0 there is none.",
                given=f"loss.radius={radius}, loss.nu=0",
                override=["loss.nu=0.1", "loss.radius=null"],
            )
        self.nu = nu
        self.radius = radius
        self.weight = weight
        self.register_buffer("squared_radius", torch.tensor(0.0 if radius is None else float(radius) ** 2))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of scores ``(B,)`` and class ids ``(B,)``, 0 for normal."""
        score, normal = at_least_float32(logits), target == NORMAL
        if self.nu == 0:
            return self.weight * mean_over(score, normal)
        if self.training and self.radius is None:
            self._fit_radius(score.detach(), normal)
        limit = self.squared_radius.to(score.dtype)
        outside = mean_over((score - limit).clamp(min=0), normal)
        # Without any normal sample the loss is 0, radius included.
        return self.weight * (limit * normal.any() + outside / self.nu)

    def _fit_radius(self, score: Tensor, normal: Tensor) -> None:
        # Not score[normal], whose size the host would have to wait for.
        quantile = score.masked_fill(~normal, torch.nan).nanquantile(1 - self.nu).to(self.squared_radius.dtype)
        moved = self.squared_radius.lerp(quantile, RADIUS_MOMENTUM)
        self.squared_radius.copy_(torch.where(quantile.isnan(), self.squared_radius, moved))


def mean_over(values: Tensor, counts: Tensor) -> Tensor:
    """Mean of ``values`` ``(B,)`` over the samples that count, bool ``(B,)``; 0 with a graph if there are none.

    What does not count leaves no trace in value or gradient, even where it is infinite.
    """
    return torch.where(counts, values, 0).sum() / counts.sum().clamp(min=1)
