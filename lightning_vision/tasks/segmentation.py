"""One class a pixel."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lightning_vision import metrics
from lightning_vision.tasks.base import Task
from lightning_vision.types import TargetKind


class Segmentation(Task):
    """Logits ``(B, C, H, W)`` against class maps ``(B, H, W)``.

    All figures come from one confusion matrix over the whole split, with ignored pixels left out: ``mean_iou`` (the
    published mean IoU: ``torchmetrics.MulticlassJaccardIndex``), ``pixel_accuracy``, ``mean_accuracy`` (mean of the
    classes' recalls) and ``dice``. Classes in neither truth nor prediction are left out of the means.
    """

    name: ClassVar[str] = "segmentation"
    target_kind: ClassVar[TargetKind] = "mask"
    train_figures: ClassVar[bool] = False

    def figures(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """Mean IoU, pixel accuracy, mean class accuracy, mean Dice."""
        confusion = computed["confusion"]
        return {
            "mean_iou": metrics.iou(confusion).nanmean().item(),
            "pixel_accuracy": metrics.accuracy(confusion).item(),
            "mean_accuracy": metrics.recall(confusion).nanmean().item(),
            "dice": metrics.dice(confusion).nanmean().item(),
        }

    def per_class(self, computed: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """IoU, accuracy (recall) and Dice of each class."""
        confusion = computed["confusion"]
        return {
            "iou": self.named(metrics.iou(confusion)),
            "accuracy": self.named(metrics.recall(confusion)),
            "dice": self.named(metrics.dice(confusion)),
        }
