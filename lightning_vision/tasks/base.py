"""The contract of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.losses.base import log_of
from lightning_vision.metrics import EpochScores
from lightning_vision.metrics.bootstrap import Interval
from lightning_vision.metrics.ranking import MAX_STORED
from lightning_vision.types import TargetKind, TargetSpec

if TYPE_CHECKING:
    from lightning_vision.head import Head, HeadOutput
    from lightning_vision.inference.prediction import Place, Prediction
    from lightning_vision.inference.writers import Writer
    from lightning_vision.reports.scored import Picture, Scored

Stage = Literal["train", "val", "test", "original"]
Cells = Tensor | list[str]


class PerImage(NamedTuple):
    """What is said of each of B images by itself.

    Args:
        columns: By name, ``(B,)`` numbers (NaN: not defined) or B texts.
        badness: ``(B,)``, the larger the worse; NaN for images that are not judged.
        prominence: ``(B,)``: images with large ones are shown beside the worst, such as the best; None for nothing.
    """

    columns: dict[str, Cells]
    badness: Tensor
    prominence: Tensor | None = None


class Task(ABC):
    """Turns the output of a head and targets into figures, predictions and pictures.

    Args:
        target: Classes, their names and the ignored value.

    Attributes:
        name: Its name in a config.
        output: What a decoder for it returns, as in ``Decoder.output``.
        target_kind: What its targets are.
        trained_as: The task whose losses serve it too, or None.
        needs_target: Whether it cannot be trained without targets.
        mixes: Whether images of two samples, with both of their targets, are something to learn from.
        covers_classes: Whether every class must have training samples.
        train_figures: Whether the figures are worth their cost on training batches too; the loss is always reported.
        max_stored: Probabilities, rows times classes, that its counter keeps; with more nothing can be calibrated.
        calibrates: What can be fitted on the validation split (setting ``calibrate``): ``temperature``, ``thresholds``.
        default_loss: The loss of ``loss=auto``.
        default_decoder: A decoder to suggest.
        monitor: The figure of ``monitor=auto``, of the validation split.
        shown: The figures that stand in the line of an epoch.
        class_figures: The keys of ``per_class``.
        saves: What ``predict`` can write of it beside its table (setting ``save``).
        counted: What ``support`` counts, in a word.
    """

    name: ClassVar[str]
    output: ClassVar[str]
    target_kind: ClassVar[TargetKind]
    trained_as: ClassVar[str | None] = None
    needs_target: ClassVar[bool] = True
    mixes: ClassVar[bool] = True
    covers_classes: ClassVar[bool] = True
    train_figures: ClassVar[bool]
    max_stored: ClassVar[int] = MAX_STORED
    calibrates: ClassVar[tuple[str, ...]] = ()
    default_loss: ClassVar[str]
    default_decoder: ClassVar[str]
    monitor: ClassVar[str]
    shown: ClassVar[tuple[str, ...]]
    class_figures: ClassVar[tuple[str, ...]] = ()
    saves: ClassVar[tuple[str, ...]] = ()
    counted: ClassVar[str] = "images"

    def __init__(self, target: TargetSpec) -> None:
        self.target = target

    def scores(self, stage: Stage) -> Metric:
        """A fresh counter for one split; ``original``: for masks at the size of their own files."""
        return EpochScores(self.target.num_classes, self.target.ignore_index)

    def update(
        self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None, loss: Tensor | None = None
    ) -> None:
        """Add a batch to a counter.

        Args:
            scores: From ``scores``.
            head: The head that the output is from.
            output: Of the head, for B samples.
            target: Of the same samples.
            loss: Their mean loss.
        """
        scores.update(output.logits, target, loss)

    def starts_from(self, target: Tensor) -> Tensor | slice:
        """The samples, as an index into a batch, that ``Decoder.start_from`` sees of a training batch."""
        return slice(None)

    def buffers(self) -> dict[str, Tensor]:
        """What its head keeps beside its weights, by name, as it is before anything is learned."""
        return {}

    def learn(self, head: Head, computed: dict[str, Tensor]) -> None:  # noqa: B027  # most tasks learn nothing here
        """Take what is fitted on the validation split, such as a threshold, into buffers of the head.

        Args:
            head: The head that this is the task of.
            computed: Of the counter of the validation split, which has been through all of it.
        """

    def compute(self, head: Head, scores: Metric) -> dict[str, Tensor]:
        """Turn a counter into what figures are computed from."""
        computed: dict[str, Tensor] = scores.compute()
        return computed

    @abstractmethod
    def figure_names(self, stage: Stage) -> tuple[str, ...]:
        """The keys of ``figures`` for a counter of this stage, the loss left out."""

    @abstractmethod
    def figures(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """Flat overall figures from the ``compute()`` of a counter."""

    def intervals(self, computed: dict[str, Tensor]) -> dict[str, Interval]:
        """95 % intervals of some figures of a test, by resampling its images (bootstrap)."""
        return {}

    @abstractmethod
    def per_class(self, computed: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """Figures of each class: ``{figure: {class name: value}}``; NaN where a class does not occur."""

    def support(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """How many targets each class has; see ``counted``."""
        return self.named(computed["confusion"].sum(1)) if "confusion" in computed else {}

    @abstractmethod
    def per_image(self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None) -> PerImage:
        """What is said of each image of a batch of a test.

        Args:
            scores: The counter, which has just been given this batch.
            head: The head that the output is from.
            output: Of the head, for B samples.
            target: Of the same samples.
        """

    def probabilities(self, head: Head, logits: Tensor) -> Tensor:
        """What predictions and scores show of logits ``(B, C, ...)``: what the loss was made for, or their softmax."""
        return logits.softmax(1) if head.loss is None else head.loss.probabilities(logits)

    def logits(self, head: Head, probabilities: Tensor) -> Tensor:
        """Logits ``(B, C, ...)`` for which ``probabilities`` gives these back; what was fitted applies as always."""
        return log_of(probabilities) if head.loss is None else head.loss.logits(probabilities)

    def averaged(self, head: Head, views: Sequence[HeadOutput]) -> HeadOutput:
        """One output from several views of the same images: here the mean of their probabilities.

        Args:
            head: The head that the outputs are from.
            views: Its output for each view, where the pixels are those of the image as it is.
        """
        probabilities = torch.stack([head.probabilities(view.logits.float()) for view in views]).mean(0)
        return views[0]._replace(
            logits=self.logits(head, probabilities), hidden=mean_vectors([v.hidden for v in views])
        )

    @abstractmethod
    def tensors(self, head: Head, output: HeadOutput) -> dict[str, Tensor]:
        """What an exported model returns of a batch, by name: tensors alone, without names, files and decisions."""

    @abstractmethod
    def prediction(self, head: Head, output: HeadOutput, place: Place) -> Prediction:
        """What is predicted for one image.

        Args:
            head: The head that the output is from.
            output: Of the head, for this image alone: its tensors have no dimension of samples.
            place: The image's file, its size, and the way that it was resized.
        """

    @abstractmethod
    def writer(self, folder: Path, root: Path | None, output: Output = PLAIN) -> Writer:
        """What writes predictions.

        Args:
            folder: Where to.
            root: The folder that the images lie in, if it is one.
            output: What is written beside the table, the table's format, and what is there already.
        """

    @abstractmethod
    def draw(self, scored: Scored) -> list[Picture]:
        """Draw the pictures of a scored split; return them in the order in which they are looked at."""

    def texts(self, ids: Tensor) -> list[str]:
        """Class ids ``(B,)`` as names; nothing for those that are none of the classes."""
        names = self.target.class_names
        return [names[i] if 0 <= i < len(names) else "" for i in ids.tolist()]

    def named(self, values: Tensor) -> dict[str, float]:
        """Pair per-class values ``(C,)`` with the class names."""
        return dict(zip(self.target.class_names, values.tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as a checkpoint holds it."""
        return {"task": self.name, "target": self.target.to_dict()}


def mean_vectors(vectors: Sequence[Tensor | None]) -> Tensor | None:
    """The mean direction of vectors ``(B, D)``, at their mean length; None where there are none.

    Vectors are compared by their directions, so that each view counts alike, however long its vector.
    """
    found = [vector.float() for vector in vectors if vector is not None]
    if not found:
        return None
    together = torch.stack(found)
    length = torch.linalg.vector_norm(together, dim=-1, keepdim=True).mean(0)
    return F.normalize(F.normalize(together, dim=-1).mean(0), dim=-1) * length
