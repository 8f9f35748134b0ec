"""Losses that teach a classifier to be unsure of what belongs to none of its classes."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.losses.base import Loss, at_least_float32, log_of
from lightning_vision.types import Between


class EntropicOpenSetLoss(Loss):
    """Entropic open-set loss (Dhamija, Günther and Boult, NeurIPS 2018, Eq. 1), averaged over all rows of the batch.

    With ``S`` the softmax over the ``K`` known classes::

        row  = -log S_y               of a row of a known class y
               -1/K sum_c log S_c     of a background row: smallest where all known classes are equally likely
        loss = weight * mean(row)

    As in the paper, the background has no output of its own: its rows have the target ``ignore_index``, which the
    setting ``data.unknown`` gives them. Where it is one of the ``C`` classes all the same (``background_class``), its
    logit is left out: ``K = C - 1``, no gradient reaches it, and its probability is 0. That a row is unknown shows in
    known classes that are all unlikely, and is decided by a threshold, not here.

    Args:
        num_classes: Number of classes, a background class included.
        class_names: Name of every class, by id.
        ignore_index: Target value of background rows, or None.
        background_class: Name or id of a class that stands for everything unknown. Without it and without background
            rows the loss is cross-entropy.
        weight: Factor of the whole loss.

    Attributes:
        background: Id of the background class, or None.

    Raises:
        ConfigError: If the background class is none of the classes, or the only one.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    counts_unknown: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        background_class: str | int | None = None,
        weight: Annotated[float, Between(0)] = 1.0,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.background = _class_id(background_class, self.class_names)
        self.weight = weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits ``(B, C)`` and class ids ``(B,)``."""
        target = target.long()
        return self._mean(self._entropic(logits, target))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax of logits ``(B, C)`` over the known classes; the background's is 0."""
        if self.background is None:
            return logits.softmax(1)
        p = self._known(logits).softmax(1)
        return torch.cat([p[:, : self.background], p.new_zeros(len(p), 1), p[:, self.background :]], 1)

    def logits(self, probabilities: Tensor) -> Tensor:
        """Return logits ``(B, C)`` with this softmax over the known classes; the background's is negligible."""
        return log_of(probabilities)

    def _known(self, logits: Tensor) -> Tensor:
        """``(B, C)`` without the column of the background."""
        if self.background is None:
            return logits
        return torch.cat([logits[:, : self.background], logits[:, self.background + 1 :]], 1)

    def _is_background(self, target: Tensor) -> Tensor:
        found = torch.zeros_like(target, dtype=torch.bool)
        for value in (self.background, self.ignore_index):
            if value is not None:
                found = found | (target == value)
        return found

    def _entropic(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of every row, ``(B,)``."""
        log_p = self._known(at_least_float32(logits)).log_softmax(1)
        known = ~self._is_background(target)
        column = target if self.background is None else target - (target > self.background).long()
        nll = -log_p.gather(1, column.where(known, 0)[:, None])[:, 0]
        return nll.where(known, -log_p.mean(1))

    def _mean(self, rows: Tensor) -> Tensor:
        return self.weight * rows.sum() / max(len(rows), 1)


class ObjectosphereLoss(EntropicOpenSetLoss):
    """Objectosphere loss (Dhamija, Günther and Boult, NeurIPS 2018, Eq. 2), averaged over all rows of the batch.

    The entropic open-set loss, and beside it long features for what is known and short ones for the background. With
    ``F`` the features, the input of the last linear layer::

        row  = entropic + zeta * max(0, xi - |F|) ** 2     of a row of a known class
               entropic + zeta * |F| ** 2                  of a background row
        loss = weight * mean(row)

    ``zeta`` is the paper's lambda, a factor of both terms. Good values depend on the length that features have.

    Args:
        num_classes: Number of classes, a background class included.
        class_names: Name of every class, by id.
        ignore_index: Target value of background rows, or None.
        background_class: Name or id of a class that stands for everything unknown. Without it and without background
            rows the loss is cross-entropy with the term of known rows.
        xi: Length of the features that rows of known classes shall have at least.
        zeta: Weight of the terms of the features' lengths.
        weight: Factor of the whole loss.

    Attributes:
        background: Id of the background class, or None.

    Raises:
        ConfigError: If the background class is none of the classes, or the only one.
    """

    needs: ClassVar[tuple[str, ...]] = ("features",)

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        background_class: str | int | None = None,
        xi: Annotated[float, Between(0)] = 10.0,
        zeta: Annotated[float, Between(0)] = 0.1,
        weight: Annotated[float, Between(0)] = 1.0,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index, background_class, weight)
        self.xi = xi
        self.zeta = zeta

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            logits: ``(B, C)``.
            target: Class ids ``(B,)``.
            features: ``(B, D)``, the input of the last linear layer; required.
        """
        if features is None:
            raise TypeError("the objectosphere loss needs the features (B, D) beside the logits")
        target = target.long()
        features = at_least_float32(features)
        short = (self.xi - torch.linalg.vector_norm(features, dim=1)).clamp(min=0).square()
        length = features.square().sum(1).where(self._is_background(target), short)
        return self._mean(self._entropic(logits, target) + self.zeta * length)


def _class_id(given: str | int | None, class_names: tuple[str, ...]) -> int | None:
    """Return the id of a class that is given by name or id."""
    if given is None:
        return None
    if isinstance(given, str) and given in class_names:
        found = class_names.index(given)
    elif isinstance(given, int) and 0 <= given < len(class_names):
        found = given
    else:
        near = nearest(str(given), class_names)
        raise ConfigError(
            "loss.background_class is none of the classes.",
            given=given,
            expected=f"a name out of {listed(class_names)}; an id from 0 to {len(class_names) - 1}; or null",
            nearest=near,
            override=f"loss.background_class={class_names.index(near) if near else 'null'}",
        )
    if len(class_names) == 1:
        raise ConfigError(
            "loss.background_class leaves no class that is known.",
            given=given,
            expected="at least one class beside it",
            override="loss.background_class=null",
        )
    return found
