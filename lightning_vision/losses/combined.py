"""A weighted sum of losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, cast

import torch
from torch import Tensor

from lightning_vision.losses.base import Loss
from lightning_vision.types import Between


class CombinedLoss(Loss):
    """The sum of several losses, each with its own settings and ``weight``: ``loss=[softmax_cross_entropy,dice_loss]``.

    ``weight * (first.weight * first + second.weight * second + ...)``. It serves the tasks that all of them serve, and
    predictions show the probabilities of the first.

    Args:
        num_classes: Number of classes.
        class_names: Name of every class, by id.
        ignore_index: Target value that counts for nothing, or None.
        losses: The losses by name. In a config: the settings of each, those that are left out have their defaults.
        weight: Factor of the sum.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "multilabel", "segmentation", "embedding", "anomaly")

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        *,
        losses: Mapping[str, Loss],
        weight: Annotated[float, Between(0)] = 1.0,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        # torch's names of parts have no dots, as entmax_1.5_loss has.
        self.losses = torch.nn.ModuleList(losses.values())
        self.weight = weight
        self.needs = tuple(dict.fromkeys(name for loss in losses.values() for name in loss.needs))  # type: ignore[misc]
        self.counts_unknown = any(loss.counts_unknown for loss in losses.values())  # type: ignore[misc]
        self.trains_on_anomalies = any(loss.trains_on_anomalies for loss in losses.values())  # type: ignore[misc]
        self.views = max(loss.views for loss in losses.values())  # type: ignore[misc]
        self.soft_targets = all(loss.soft_targets for loss in losses.values())  # type: ignore[misc]

    def forward(self, logits: Tensor, target: Tensor | None, **known: object) -> Tensor:
        """Return the sum; ``known``: what some of the losses take beside logits and target (see ``Loss.needs``)."""
        terms = [loss(logits, target, **{name: known[name] for name in loss.needs}) for loss in self._parts()]
        return self.weight * torch.stack(terms).sum()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Those of the first loss."""
        return self._parts()[0].probabilities(logits)

    def logits(self, probabilities: Tensor) -> Tensor:
        """Those of the first loss."""
        return self._parts()[0].logits(probabilities)

    def _parts(self) -> list[Loss]:
        return cast("list[Loss]", list(self.losses))
