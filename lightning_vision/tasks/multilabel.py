"""Any number of labels an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_vision.inference.label_set_writer import SEPARATOR, LabelSetWriter
from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.inference.prediction import Place, Prediction
from lightning_vision.losses.base import logit_of
from lightning_vision.metrics.bootstrap import MOST_IMAGES, MOST_RANKED, Interval, row_intervals
from lightning_vision.metrics.calibration import fit_temperature, fit_thresholds
from lightning_vision.metrics.multilabel import MultilabelScores
from lightning_vision.metrics.ranking import drawn_average_precision
from lightning_vision.tasks.base import PerImage, Stage, Task
from lightning_vision.types import UNKNOWN, TargetKind

if TYPE_CHECKING:
    from lightning_vision.head import Head, HeadOutput
    from lightning_vision.reports.scored import Picture, Scored

FIGURES = ("mean_average_precision", "auroc", "f1", "f1_micro", "exact_match", "hamming_accuracy")


class Multilabel(Task):
    """Logits ``(B, C)`` against sets of labels ``(B, C)`` of 0, 1 and 255 for unknown; one sigmoid a label.

    Figures: ``mean_average_precision`` (mean over the labels that occur), ``auroc``, ``f1`` (macro) and ``f1_micro``,
    ``exact_match`` (all labels of an image right) and ``hamming_accuracy``, the last four at the thresholds: 0.5, or
    what ``calibrate=thresholds`` fitted on the validation split.
    """

    name: ClassVar[str] = "multilabel"
    output: ClassVar[str] = "label"
    target_kind: ClassVar[TargetKind] = "labels"
    train_figures: ClassVar[bool] = False
    calibrates: ClassVar[tuple[str, ...]] = ("temperature", "thresholds")
    default_loss: ClassVar[str] = "sigmoid_cross_entropy"
    default_decoder: ClassVar[str] = "classifier"
    monitor: ClassVar[str] = "mean_average_precision"
    shown: ClassVar[tuple[str, ...]] = ("mean_average_precision", "f1")
    class_figures: ClassVar[tuple[str, ...]] = ("average_precision", "f1")
    saves: ClassVar[tuple[str, ...]] = ("probabilities",)
    counted: ClassVar[str] = "positives"

    def buffers(self) -> dict[str, Tensor]:
        """The temperature, and a threshold for each label."""
        return {"temperature": torch.ones(()), "thresholds": torch.full((self.target.num_classes,), 0.5)}

    def scores(self, stage: Stage) -> Metric:
        """A counter that keeps the probabilities of all images."""
        return MultilabelScores(self.target.num_classes)

    def update(
        self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None, loss: Tensor | None = None
    ) -> None:
        """Add a batch."""
        assert isinstance(scores, MultilabelScores)
        assert target is not None
        scores.thresholds = torch.full_like(head.thresholds, 0.5) if head.calibrating else head.thresholds
        scores.update(head.tempered(output.logits), target, loss)

    def learn(self, head: Head, computed: dict[str, Tensor]) -> None:
        """Fit the temperature, then the thresholds, where they are asked for."""
        if "probabilities" not in computed:
            return
        # A probability that float32 rounds to 0 or 1 has no finite logit.
        logits, truth = computed["probabilities"].double().logit(2.0**-25), computed["truth"]
        if "temperature" in head.calibrate:
            known = truth != UNKNOWN
            # One label is a choice of two classes, with the logits 0 and z.
            pairs = torch.stack([torch.zeros_like(logits[known]), logits[known]], 1)
            head.temperature.fill_(fit_temperature(pairs, truth[known]))
        if "thresholds" in head.calibrate:
            tempered = (logits / head.temperature.double()).sigmoid()
            head.thresholds.copy_(fit_thresholds(tempered.float(), truth))

    def figure_names(self, stage: Stage) -> tuple[str, ...]:
        """Mean average precision, AUROC, F1, exact match, Hamming accuracy."""
        return FIGURES

    def figures(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """Mean average precision, AUROC, F1, exact match, Hamming accuracy."""
        computed = computed | {"f1": computed["f1_macro"]}
        return {name: computed[name].item() for name in FIGURES}

    def intervals(self, computed: dict[str, Tensor]) -> dict[str, Interval]:
        """Of the mean average precision, by resampling images."""
        truth = computed["truth"] if "probabilities" in computed else None
        if truth is None or len(truth) > MOST_IMAGES or truth.numel() > MOST_RANKED:
            return {}

        def mean_average_precision(probabilities: Tensor, truth: Tensor, times: Tensor) -> Tensor:
            known = [column != UNKNOWN for column in truth.T]
            columns = zip(probabilities.T, truth.T, known, strict=True)
            figures = [drawn_average_precision(p[k], t[k] == 1, times[k]) for p, t, k in columns]
            return torch.stack(figures).nanmean(0)

        return row_intervals({"mean_average_precision": mean_average_precision}, computed["probabilities"], truth)

    def per_class(self, computed: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """Average precision, F1 and number of positives of each label."""
        return {
            "average_precision": self.named(computed["average_precision"]),
            "f1": self.named(computed["f1"]),
            "positives": {name: int(count) for name, count in self.named(computed["support"]).items()},
        }

    def support(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """The positives of each label."""
        return self.named(computed["support"])

    def per_image(self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None) -> PerImage:
        """True and predicted labels, the mean cross-entropy of its known labels, and how many of them are wrong."""
        assert target is not None
        logits = head.tempered(output.logits).float()
        known, present = target != UNKNOWN, target == 1
        predicted = logits.sigmoid() >= head.thresholds
        count = known.sum(1)
        entropies = nn.functional.binary_cross_entropy_with_logits(logits, present.float(), reduction="none")
        wrong = ((predicted != present) & known).sum(1)
        loss = (entropies * known).sum(1) / count
        columns: dict[str, Tensor | list[str]] = {
            "truth": self._joined(present),
            "prediction": self._joined(predicted),
            "loss": loss,
            "wrong_labels": wrong,
            "correct": (wrong == 0).double().where(count > 0, torch.nan),
        }
        return PerImage(columns, loss)

    def _joined(self, chosen: Tensor) -> list[str]:
        names = self.target.class_names
        return [SEPARATOR.join(n for n, yes in zip(names, row, strict=True) if yes) for row in chosen.tolist()]

    def probabilities(self, head: Head, logits: Tensor) -> Tensor:
        """The sigmoid of each label, at the fitted temperature."""
        return head.tempered(logits).sigmoid()

    def logits(self, head: Head, probabilities: Tensor) -> Tensor:
        """See ``Task.logits``; the temperature is taken back."""
        return logit_of(probabilities) * head.temperature

    def tensors(self, head: Head, output: HeadOutput) -> dict[str, Tensor]:
        """``probabilities`` ``(B, C)``, one a label."""
        return {"probabilities": head.probabilities(output.logits)}

    def prediction(self, head: Head, output: HeadOutput, place: Place) -> Prediction:
        """The probability of each label, and those at or above their thresholds."""
        probabilities = head.probabilities(output.logits.unsqueeze(0))[0]
        chosen = (probabilities >= head.thresholds.to(probabilities)).tolist()
        names = tuple(name for name, yes in zip(self.target.class_names, chosen, strict=True) if yes)
        return Prediction(place.path, labels=names, probabilities=probabilities.cpu().numpy())

    def writer(self, folder: Path, root: Path | None, output: Output = PLAIN) -> LabelSetWriter:
        """A table of labels and their probabilities."""
        return LabelSetWriter(folder, self.target.class_names, output)

    def draw(self, scored: Scored) -> list[Picture]:
        """Precision and recall of each label, and a sheet of images with what was predicted."""
        from lightning_vision.reports.label_sets import draw

        return draw(scored)
