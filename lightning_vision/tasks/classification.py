"""One class an image."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lightning_vision import metrics
from lightning_vision.metrics import EpochScores
from lightning_vision.tasks.base import Task
from lightning_vision.types import TargetKind

TOP = 5


class Classification(Task):
    """Logits ``(B, C)`` against class ids ``(B,)``.

    Figures: ``accuracy`` (micro), ``accuracy_macro`` (mean of the classes' recalls, classes without a target left out:
    scikit-learn's balanced accuracy) and, with more than five classes, ``accuracy_top5``.
    """

    name: ClassVar[str] = "classification"
    target_kind: ClassVar[TargetKind] = "label"
    train_figures: ClassVar[bool] = True

    def scores(self) -> EpochScores:
        """A counter that knows top-5 where there are more than five classes."""
        top_k = TOP if self.target.num_classes > TOP else None
        return EpochScores(self.target.num_classes, self.target.ignore_index, top_k)

    def figures(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """Accuracy, macro accuracy, top-5 accuracy."""
        confusion = computed["confusion"]
        result = {
            "accuracy": metrics.accuracy(confusion).item(),
            "accuracy_macro": metrics.recall(confusion).nanmean().item(),
        }
        if "top" in computed:
            result[f"accuracy_top{TOP}"] = computed["top"].item()
        return result

    def per_class(self, computed: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """Accuracy (recall) and F1 of each class."""
        confusion = computed["confusion"]
        return {"accuracy": self.named(metrics.recall(confusion)), "f1": self.named(metrics.dice(confusion))}
