"""The contract of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from lightning_vision.metrics import EpochScores
from lightning_vision.types import TargetKind, TargetSpec


class Task(ABC):
    """Turns logits and targets into figures.

    Args:
        target: Classes, their names and the ignored value.
    """

    name: ClassVar[str]
    target_kind: ClassVar[TargetKind]
    train_figures: ClassVar[bool]
    """Whether the figures are worth their cost on training batches too; the training loss is always reported."""

    def __init__(self, target: TargetSpec) -> None:
        self.target = target

    def scores(self) -> EpochScores:
        """A fresh counter for one split."""
        return EpochScores(self.target.num_classes, self.target.ignore_index)

    @abstractmethod
    def figures(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """Flat overall figures from ``EpochScores.compute()``; every value lies in [0, 1]."""

    @abstractmethod
    def per_class(self, computed: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """Figures of each class: ``{figure: {class name: value}}``; NaN where a class does not occur."""

    def named(self, values: Tensor) -> dict[str, float]:
        """Pair per-class values ``(C,)`` with the class names."""
        return dict(zip(self.target.class_names, values.tolist(), strict=True))
