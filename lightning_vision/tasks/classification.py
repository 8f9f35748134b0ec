"""One class an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_vision import metrics
from lightning_vision.inference.label_writer import LabelWriter
from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.inference.prediction import Place, Prediction
from lightning_vision.inference.writers import Writer
from lightning_vision.losses.base import Loss, log_of
from lightning_vision.metrics import Counts, EpochScores
from lightning_vision.metrics.bootstrap import Interval, sample_intervals
from lightning_vision.metrics.calibration import LEAST, fit_temperature
from lightning_vision.metrics.classification import ClassificationScores
from lightning_vision.tasks.base import PerImage, Stage, Task
from lightning_vision.types import TargetKind

if TYPE_CHECKING:
    from lightning_vision.head import Head, HeadOutput
    from lightning_vision.reports.scored import Picture, Scored

TOP = 5
# Figures of a confusion matrix, or of what was counted of it.
COUNTED: dict[str, Callable[[Tensor | Counts], Tensor]] = {
    "accuracy": metrics.accuracy,
    "accuracy_macro": lambda counts: metrics.recall(counts).nanmean(-1),
    "f1": lambda counts: metrics.dice(counts).nanmean(-1),
}
RANKED = ("auroc", "average_precision", "calibration_error")


class Classification(Task):
    """Logits ``(B, C)`` against class ids ``(B,)``.

    Figures: ``accuracy`` (micro), ``accuracy_macro`` (mean of the classes' recalls, classes without a target left out:
    scikit-learn's balanced accuracy), ``f1`` (macro) and, with more than five classes, ``accuracy_top5``. Of validation
    and test also, from the probabilities, ``auroc`` (macro, one class against the rest), ``average_precision`` (macro)
    and ``calibration_error`` (expected calibration error of 15 bins).
    """

    name: ClassVar[str] = "classification"
    output: ClassVar[str] = "label"
    target_kind: ClassVar[TargetKind] = "label"
    train_figures: ClassVar[bool] = True
    calibrates: ClassVar[tuple[str, ...]] = ("temperature",)
    default_loss: ClassVar[str] = "softmax_cross_entropy"
    default_decoder: ClassVar[str] = "classifier"
    monitor: ClassVar[str] = "accuracy"
    shown: ClassVar[tuple[str, ...]] = ("accuracy", "accuracy_macro")
    class_figures: ClassVar[tuple[str, ...]] = ("accuracy", "precision", "f1")
    saves: ClassVar[tuple[str, ...]] = ("probabilities",)

    @property
    def _top(self) -> int | None:
        return TOP if self.target.num_classes > TOP else None

    def buffers(self) -> dict[str, Tensor]:
        """The temperature."""
        return {"temperature": torch.ones(())}

    def scores(self, stage: Stage) -> Metric:
        """Counts alone for training; beside them, for the other splits, the probabilities of all images."""
        kind = EpochScores if stage == "train" else ClassificationScores
        return kind(self.target.num_classes, self.target.ignore_index, self._top)

    def update(
        self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None, loss: Tensor | None = None
    ) -> None:
        """Add a batch."""
        scores.update(log_probabilities(head, output.logits), target, loss)
        # Of a test alone: only its pictures show them.
        tested = scores is head.test_scores and output.hidden is not None
        if tested and target is not None and isinstance(scores, ClassificationScores):
            assert output.hidden is not None
            scores.embed(output.hidden, output.logits, target)

    def learn(self, head: Head, computed: dict[str, Tensor]) -> None:
        """Fit the temperature, where it is asked for."""
        if "temperature" in head.calibrate and "probabilities" in computed:
            logits = computed["probabilities"].clamp(min=LEAST).log()
            truth = computed["truth"]
            known = (truth == 1).any(1)
            head.temperature.fill_(fit_temperature(logits[known], truth[known].argmax(1)))

    def probabilities(self, head: Head, logits: Tensor) -> Tensor:
        """What the loss was made for, scaled so that the classes of an image sum to 1, at the fitted temperature."""
        return log_probabilities(head, logits).softmax(1)

    def logits(self, head: Head, probabilities: Tensor) -> Tensor:
        """See ``Task.logits``; the temperature is taken back."""
        return super().logits(head, (log_of(probabilities) * head.temperature).softmax(1))

    def figure_names(self, stage: Stage) -> tuple[str, ...]:
        """Accuracies and F1; but for training also what is computed from probabilities."""
        names = (*COUNTED, *((f"accuracy_top{TOP}",) if self._top else ()))
        return names if stage == "train" else (*names, *RANKED)

    def figures(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """Accuracies and F1; but for training also what is computed from probabilities."""
        result = {name: figure(computed["confusion"]).item() for name, figure in COUNTED.items()}
        if "top" in computed:
            result[f"accuracy_top{TOP}"] = computed["top"].item()
        return result | {name: computed[name].item() for name in RANKED if name in computed}

    def intervals(self, computed: dict[str, Tensor]) -> dict[str, Interval]:
        """Of the accuracies and F1, by resampling images."""
        return sample_intervals(computed["confusion"], COUNTED)

    def per_class(self, computed: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """Accuracy (recall), precision and F1 of each class."""
        confusion = computed["confusion"]
        return {
            "accuracy": self.named(metrics.recall(confusion)),
            "precision": self.named(metrics.precision(confusion)),
            "f1": self.named(metrics.dice(confusion)),
        }

    def tensors(self, head: Head, output: HeadOutput) -> dict[str, Tensor]:
        """``probabilities`` ``(B, C)``."""
        return {"probabilities": head.probabilities(output.logits)}

    def per_image(self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None) -> PerImage:
        """Truth, prediction and its probability, the log loss of the truth, and whether the prediction is right."""
        assert target is not None
        logits = log_probabilities(head, output.logits)
        predicted = logits.max(1).indices
        chances = logits.float().log_softmax(1)
        known = (target >= 0) & (target < self.target.num_classes)
        if self.target.ignore_index is not None:
            known &= target != self.target.ignore_index
        loss = -chances.gather(1, target.where(known, 0)[:, None])[:, 0].where(known, torch.nan)
        columns: dict[str, Tensor | list[str]] = {
            "truth": self.texts(target.where(known, -1)),
            "prediction": self.texts(predicted),
            "probability": chances.gather(1, predicted[:, None])[:, 0].exp(),
            "loss": loss,
            "correct": (predicted == target).double().where(known, torch.nan),
        }
        return PerImage(columns, loss)

    def prediction(self, head: Head, output: HeadOutput, place: Place) -> Prediction:
        """The probability of each class, and the name of the most probable one."""
        probabilities = head.probabilities(output.logits.unsqueeze(0))[0].cpu().numpy()
        label = self.target.class_names[int(probabilities.argmax())]
        return Prediction(place.path, label=label, probabilities=probabilities)

    def writer(self, folder: Path, root: Path | None, output: Output = PLAIN) -> Writer:
        """A table of classes and their probabilities."""
        return LabelWriter(folder, self.target.class_names, output)

    def draw(self, scored: Scored) -> list[Picture]:
        """The confusion matrix, a map of the embeddings, and a sheet of images with what was predicted."""
        from lightning_vision.reports.labels import draw

        return draw(scored)


def log_probabilities(head: Head, logits: Tensor) -> Tensor:
    """Logits ``(B, C)`` whose softmax are the probabilities that predictions show, also where the loss has its own."""
    loss = head.loss
    if loss is None or type(loss).probabilities is Loss.probabilities:
        return head.tempered(logits)
    # A class that a sparse loss rules out keeps the probability 0.
    return head.tempered(loss.probabilities(logits).float().log())
