"""How unusual an image is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_vision import metrics
from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.inference.prediction import Place, Prediction
from lightning_vision.inference.score_writer import AnomalyWriter
from lightning_vision.metrics.anomaly import AnomalyScores, best_f1_threshold
from lightning_vision.metrics.bootstrap import MOST_IMAGES, Interval, row_intervals
from lightning_vision.metrics.confusion import confusion_counts
from lightning_vision.metrics.ranking import drawn_auroc, drawn_average_precision
from lightning_vision.tasks.base import PerImage, Stage, Task, mean_vectors
from lightning_vision.types import TargetKind

if TYPE_CHECKING:
    from lightning_vision.decoders.anomaly import AnomalyDecoder
    from lightning_vision.head import Head, HeadOutput
    from lightning_vision.reports.scored import Picture, Scored

RANKED = ("auroc", "average_precision")
DECIDED = ("f1", "precision", "recall", "accuracy")
TINY = 1e-30


class StoredScores(AnomalyScores):
    """Scores that come with every image's own, from which a threshold is learned, and with the threshold so far."""

    def __init__(self) -> None:
        super().__init__()
        self.known = torch.tensor(torch.nan)

    def compute(self) -> dict[str, Tensor]:
        """Return ``loss``, ``auroc``, ``average_precision``, ``scores`` and ``anomalous`` ``(N,)``, ``threshold``."""
        scores, anomalous = self.stored()
        return {**super().compute(), "scores": scores, "anomalous": anomalous, "threshold": self.known.clone()}


class Anomaly(Task):
    """Scores ``(B,)``, the larger the more unusual, against 0 for normal and 1 for anomalous ``(B,)``.

    Figures: ``auroc`` and ``average_precision`` of the order of the scores, and ``f1``, ``precision``, ``recall`` and
    ``accuracy`` of calling images anomalous from the threshold on. They are NaN where they are not defined: without
    normal or anomalous images, or without a threshold.
    """

    name: ClassVar[str] = "anomaly"
    output: ClassVar[str] = "score"
    target_kind: ClassVar[TargetKind] = "label"
    mixes: ClassVar[bool] = False
    covers_classes: ClassVar[bool] = False
    train_figures: ClassVar[bool] = False
    default_loss: ClassVar[str] = "deep_svdd"
    default_decoder: ClassVar[str] = "anomaly"
    monitor: ClassVar[str] = "auroc"
    shown: ClassVar[tuple[str, ...]] = ("auroc", "f1")

    def scores(self, stage: Stage) -> Metric:
        """A counter that keeps the scores of all images."""
        return StoredScores()

    def update(
        self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None, loss: Tensor | None = None
    ) -> None:
        """Add the scores of a batch."""
        assert isinstance(scores, StoredScores)
        assert target is not None
        anomalous = target != 0
        scores.known = _decoder(head).threshold
        scores.update(output.logits, anomalous)
        # The mean over what the loss counted, which is what is normal unless it learns from anomalies too.
        counted = torch.ones_like(anomalous) if head.loss is None or head.loss.trains_on_anomalies else ~anomalous
        scores.add_loss(loss, counted.sum())

    def starts_from(self, target: Tensor) -> Tensor:
        """What is normal."""
        return target == 0

    def learn(self, head: Head, computed: dict[str, Tensor]) -> None:
        """Put the decoder's threshold where F1 is best or, without any anomaly, at a quantile of the normal scores."""
        decoder = _decoder(head)
        scores, anomalous = computed["scores"], computed["anomalous"]
        threshold = best_f1_threshold(scores, anomalous)
        if threshold is None and len(scores) and not anomalous.any():
            threshold = scores.quantile(decoder.threshold_quantile).item()
        if threshold is not None:
            decoder.threshold.fill_(threshold)
            computed["threshold"] = decoder.threshold.clone()

    def figure_names(self, stage: Stage) -> tuple[str, ...]:
        """AUROC, average precision; F1, precision, recall and accuracy at the threshold."""
        return (*RANKED, *DECIDED)

    def figures(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """AUROC, average precision; F1, precision, recall and accuracy at the threshold."""
        figures = {name: computed[name].item() for name in RANKED}
        confusion = confusion_of(computed)
        if confusion is None:
            return figures | dict.fromkeys(DECIDED, math.nan)
        recall = metrics.recall(confusion)[1].item()
        return figures | {
            # Without anomalies false alarms would make it 0, and no alarms NaN.
            "f1": math.nan if math.isnan(recall) else metrics.dice(confusion)[1].item(),
            "precision": metrics.precision(confusion)[1].item(),
            "recall": recall,
            "accuracy": metrics.accuracy(confusion).item() if confusion.any() else math.nan,
        }

    def intervals(self, computed: dict[str, Tensor]) -> dict[str, Interval]:
        """Of AUROC and average precision, by resampling images."""
        figures, rows = (drawn_auroc, drawn_average_precision), (computed["scores"], computed["anomalous"])
        return {} if len(rows[0]) > MOST_IMAGES else row_intervals(dict(zip(RANKED, figures, strict=True)), *rows)

    def per_class(self, computed: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """Recall and number of images of what is normal and what is not; nothing without a threshold."""
        confusion = confusion_of(computed)
        if confusion is None:
            return {}
        images = {name: int(count) for name, count in self.named(confusion.sum(1)).items()}
        return {"recall": self.named(metrics.recall(confusion)), "images": cast("dict[str, float]", images)}

    def averaged(self, head: Head, views: Sequence[HeadOutput]) -> HeadOutput:
        """The mean of each image's scores, which have the scale of the threshold, as a mean of probabilities has."""
        scores = torch.stack([view.logits.float() for view in views]).mean(0)
        return views[0]._replace(logits=scores, hidden=mean_vectors([view.hidden for view in views]))

    def tensors(self, head: Head, output: HeadOutput) -> dict[str, Tensor]:
        """``score`` ``(B,)``."""
        return {"score": output.logits}

    def support(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """Images that are normal, and that are not."""
        return self.named(torch.bincount(computed["anomalous"].long(), minlength=2))

    def per_image(self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None) -> PerImage:
        """Truth and score; with a threshold also the decision and whether it is right.

        The worst are those on the wrong side of the threshold by the largest factor, false alarms and misses alike.
        """
        assert target is not None
        score, threshold = output.logits.double(), _decoder(head).threshold.double()
        anomalous, called = target != 0, score >= threshold
        columns: dict[str, Tensor | list[str]] = {"truth": self.texts(anomalous), "score": score}
        if threshold.isnan():
            return PerImage(columns, torch.full_like(score, torch.nan), score)
        columns |= {"prediction": self.texts(called), "correct": (called == anomalous).double()}
        beyond = (score.clamp(min=TINY) / threshold.clamp(min=TINY)).log()
        return PerImage(columns, torch.where(anomalous, -beyond, beyond), score)

    def prediction(self, head: Head, output: HeadOutput, place: Place) -> Prediction:
        """The score and, where a threshold is known, whether it is anomalous."""
        score, threshold = output.logits.item(), _decoder(head).threshold.item()
        if math.isnan(threshold):
            return Prediction(place.path, score=score)
        return Prediction(
            place.path, label=self.target.class_names[score >= threshold], score=score, threshold=threshold
        )

    def writer(self, folder: Path, root: Path | None, output: Output = PLAIN) -> AnomalyWriter:
        """A table of scores."""
        return AnomalyWriter(folder, self.target.class_names, output)

    def draw(self, scored: Scored) -> list[Picture]:
        """The scores of what is normal and what is not, the images with the highest, and the confusion matrix."""
        from lightning_vision.reports.anomalies import draw

        return draw(scored)


def confusion_of(computed: dict[str, Tensor]) -> Tensor | None:
    """Confusion matrix ``(2, 2)`` of the decisions, rows: truth; None without a threshold."""
    if computed["threshold"].isnan():
        return None
    called = computed["scores"] >= computed["threshold"]
    return confusion_counts(called, computed["anomalous"], 2)


def _decoder(head: Head) -> AnomalyDecoder:
    return cast("AnomalyDecoder", head.decoder)
