"""One class a pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_vision import metrics
from lightning_vision.inference.mask_writer import MaskWriter
from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.inference.prediction import Place, Prediction
from lightning_vision.inference.restore import restore_size
from lightning_vision.metrics import Counts, EpochScores
from lightning_vision.metrics.bootstrap import Interval, PerImageConfusion, image_intervals
from lightning_vision.reports.palette import class_palette
from lightning_vision.tasks.base import PerImage, Stage, Task
from lightning_vision.types import TargetKind

# Pixels on either side of a border that mean_iou_inner leaves out.
BORDER = 2
IGNORED = -1
# Figures of a confusion matrix, or of what was counted of it.
COUNTED: dict[str, Callable[[Tensor | Counts], Tensor]] = {
    "mean_iou": lambda counts: metrics.iou(counts).nanmean(-1),
    "pixel_accuracy": metrics.accuracy,
    "mean_accuracy": lambda counts: metrics.recall(counts).nanmean(-1),
    "dice": lambda counts: metrics.dice(counts).nanmean(-1),
    "frequency_weighted_iou": metrics.frequency_weighted_iou,
}

if TYPE_CHECKING:
    from lightning_vision.head import Head, HeadOutput
    from lightning_vision.reports.scored import Picture, Scored


class Segmentation(Task):
    """Logits ``(B, C, H, W)`` against class maps ``(B, H, W)``.

    All figures come from one confusion matrix over the whole split, with ignored pixels left out: ``mean_iou`` (the
    published mean IoU: ``torchmetrics.MulticlassJaccardIndex``), ``pixel_accuracy``, ``mean_accuracy`` (mean of the
    classes' recalls), ``dice`` and ``frequency_weighted_iou``. Classes in neither truth nor prediction are left out of
    the means. Of a test also ``mean_iou_inner``: without the pixels within two of a border between true classes, where
    annotators disagree; what is ignored is a class of its own there.
    """

    name: ClassVar[str] = "segmentation"
    output: ClassVar[str] = "mask"
    target_kind: ClassVar[TargetKind] = "mask"
    train_figures: ClassVar[bool] = False
    default_loss: ClassVar[str] = "softmax_cross_entropy"
    default_decoder: ClassVar[str] = "unet"
    monitor: ClassVar[str] = "mean_iou"
    shown: ClassVar[tuple[str, ...]] = ("mean_iou", "pixel_accuracy")
    class_figures: ClassVar[tuple[str, ...]] = ("iou", "accuracy", "dice")
    saves: ClassVar[tuple[str, ...]] = ("overlays", "probabilities")
    counted: ClassVar[str] = "pixels"

    def scores(self, stage: Stage) -> EpochScores:
        """A confusion matrix; of a test also the counts of each image, as long as there are few."""
        kind = ImageScores if stage == "test" else EpochScores
        return kind(self.target.num_classes, self.target.ignore_index)

    def figure_names(self, stage: Stage) -> tuple[str, ...]:
        """Mean IoU, pixel accuracy, mean class accuracy, mean Dice, frequency-weighted IoU."""
        return (*COUNTED, "mean_iou_inner") if stage == "test" else tuple(COUNTED)

    def figures(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """Mean IoU, pixel accuracy, mean class accuracy, mean Dice, frequency-weighted IoU."""
        figures = {name: figure(computed["confusion"]).item() for name, figure in COUNTED.items()}
        inner = {"mean_iou_inner": COUNTED["mean_iou"](computed["inner"]).item()} if "inner" in computed else {}
        return figures | inner

    def intervals(self, computed: dict[str, Tensor]) -> dict[str, Interval]:
        """Of the figures of all pixels, by resampling images, where their counts were kept."""
        return image_intervals(computed["per_image"], COUNTED) if "per_image" in computed else {}

    def per_class(self, computed: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """IoU, accuracy (recall) and Dice of each class."""
        confusion = computed["confusion"]
        return {
            "iou": self.named(metrics.iou(confusion)),
            "accuracy": self.named(metrics.recall(confusion)),
            "dice": self.named(metrics.dice(confusion)),
        }

    def tensors(self, head: Head, output: HeadOutput) -> dict[str, Tensor]:
        """``logits``, which predictions resample to the size of the file, and ``probabilities``: ``(B, C, H, W)``."""
        return {"logits": output.logits, "probabilities": head.probabilities(output.logits)}

    def per_image(self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None) -> PerImage:
        """Mean IoU, pixel accuracy, counted pixels and the IoU of each class, of the pixels of that image alone.

        The mean is over the classes that are in its truth or prediction. The mean over the images is another figure
        than the ``mean_iou`` of the split, which counts all pixels together.
        """
        assert isinstance(scores, ImageScores)
        counts = Counts(*scores.images.latest.unbind(1))
        of_class = metrics.iou(counts)
        mean = of_class.nanmean(-1)
        pixels = counts.true.sum(-1)
        columns: dict[str, Tensor | list[str]] = {
            "mean_iou": mean,
            "pixel_accuracy": counts.hit.sum(-1) / pixels,
            "pixels": pixels,
        }
        columns |= {f"iou/{name}": of_class[:, i] for i, name in enumerate(self.target.class_names)}
        return PerImage(columns, -mean, mean)

    def prediction(self, head: Head, output: HeadOutput, place: Place) -> Prediction:
        """The class map at the size of the image's file, and the probabilities where they are wanted."""
        resized = restore_size(output.logits, place.size(), place.resize)
        mask = resized.max(0).indices.to(torch.uint8)
        if place.resize.method != "interpolate":
            ignored = self.target.ignore_index
            mask[resized.isnan().any(0)] = 255 if ignored is None else ignored
        probabilities = None
        if place.probabilities:
            probabilities = head.probabilities(resized.unsqueeze(0))[0].half().cpu().numpy()
        return Prediction(place.path, mask=mask.cpu().numpy(), probabilities=probabilities)

    def writer(self, folder: Path, root: Path | None, output: Output = PLAIN) -> MaskWriter:
        """Masks at the size of their images, overlays, and a table."""
        target = self.target
        palette = class_palette(target.num_classes, target.palette)
        return MaskWriter(
            folder, target.class_names, palette, root=root, ignore_index=target.ignore_index, output=output
        )

    def draw(self, scored: Scored) -> list[Picture]:
        """The confusion matrix, and a sheet of images beside true and predicted masks."""
        from lightning_vision.reports.masks import draw

        return draw(scored)


class ImageScores(EpochScores):
    """What ``EpochScores`` counts, the counts of each image, and the matrix of what lies inside of the true classes."""

    def __init__(self, num_classes: int, ignore_index: int | None = None) -> None:
        super().__init__(num_classes, ignore_index)
        self.images = PerImageConfusion(num_classes, ignore_index)
        self.inner = EpochScores(num_classes, IGNORED)

    def update(self, logits: Tensor, target: Tensor, loss: Tensor | None = None) -> None:
        """Add a batch."""
        predicted = logits if logits.shape == target.shape else logits.max(1).indices
        super().update(predicted, target, loss)
        self.images.update(predicted, target)
        left_out = near_borders(target)
        if self.ignore_index is not None:
            left_out = left_out | (target == self.ignore_index)
        self.inner.update(predicted, target.long().masked_fill(left_out, IGNORED))

    def compute(self) -> dict[str, Tensor]:
        """What ``EpochScores`` gives, ``inner`` ``(C, C)`` and, of few images, ``per_image`` ``(N, 3, C)``."""
        counts = self.images.compute()
        found = super().compute() | {"inner": self.inner.compute()["confusion"]}
        return found if counts is None else found | {"per_image": counts}

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        self.images.reset()
        self.inner.reset()


def near_borders(target: Tensor, width: int = BORDER) -> Tensor:
    """Which pixels lie within ``width`` of a pixel of another class, bool ``(B, H, W)``.

    Args:
        target: Class maps ``(B, H, W)``; an ignored value is a class of its own here.
        width: Pixels, also diagonally.
    """
    ids = target.float().unsqueeze(1)
    size, stride = 2 * width + 1, 1
    largest = nn.functional.max_pool2d(ids, size, stride, width)
    smallest = -nn.functional.max_pool2d(-ids, size, stride, width)
    return (largest != smallest).squeeze(1)
