"""One class an image, or none of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_vision.inference.open_set_writer import OpenSetWriter
from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.inference.prediction import Place, Prediction
from lightning_vision.metrics import EpochScores
from lightning_vision.metrics.bootstrap import MOST_IMAGES, Interval, row_intervals
from lightning_vision.metrics.open_set import OpenSetScores, at_threshold, rejection_threshold
from lightning_vision.metrics.ranking import drawn_auroc
from lightning_vision.tasks.base import PerImage, Stage
from lightning_vision.tasks.classification import Classification, log_probabilities

if TYPE_CHECKING:
    from lightning_vision.head import Head, HeadOutput
    from lightning_vision.reports.scored import Picture, Scored

UNKNOWN = "unknown"
RANKED = ("unknown_auroc", "oscr")
AT_THRESHOLD = ("known_kept", "unknown_recall", "open_set_f1")


class OpenSet(Classification):
    """Logits ``(B, C)`` of the known classes against class ids ``(B,)`` or the id of unknown images.

    An image whose confidence lies below a threshold is taken for unknown. The confidence is the largest probability;
    where the loss shapes the length of the features, that probability times the length (Dhamija et al., 2018). The
    threshold is learned on the validation split: where known images that are kept and unknown ones that are rejected
    are most, each counted by their share; without unknown images there, where 95 % of the known ones are kept.

    Figures: those of ``classification`` over the known images, and ``unknown_auroc`` (how well known and unknown images
    are told apart), ``oscr`` (the area under the open-set classification rate curve), and at the threshold
    ``known_kept``, ``unknown_recall`` and ``open_set_f1``.
    """

    name: ClassVar[str] = "open_set"
    trained_as: ClassVar[str | None] = "classification"
    mixes: ClassVar[bool] = False
    shown: ClassVar[tuple[str, ...]] = ("accuracy", "unknown_auroc")

    def buffers(self) -> dict[str, Tensor]:
        """The temperature, and the threshold."""
        return super().buffers() | {"threshold": torch.zeros(())}

    def scores(self, stage: Stage) -> Metric:
        """Counts of the known images; but for training also the confidence of all."""
        known = super().scores(stage)
        assert isinstance(known, EpochScores)
        return known if stage == "train" else _Both(known, OpenSetScores(unknown=self._id))

    @property
    def _id(self) -> int | None:
        return self.target.ignore_index

    def update(
        self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None, loss: Tensor | None = None
    ) -> None:
        """Add a batch."""
        assert target is not None
        logits = log_probabilities(head, output.logits)
        if isinstance(scores, _Both):
            counts_all = _counts_all(head)
            scores.known.update(logits, target, None if counts_all else loss)
            scores.all.update(logits, target, loss if counts_all else None, confidence=self.confidence(head, output))
        else:
            scores.update(logits, target, loss)

    def confidence(self, head: Head, output: HeadOutput) -> Tensor:
        """How sure it is that images belong to a known class, ``(B,)``."""
        largest = head.probabilities(output.logits).amax(1)
        if output.hidden is not None and head.loss is not None and "features" in head.loss.needs:
            return largest * torch.linalg.vector_norm(output.hidden.float(), dim=1)
        return largest

    def learn(self, head: Head, computed: dict[str, Tensor]) -> None:
        """Choose the threshold, and fit the temperature where it is asked for."""
        super().learn(head, computed)
        if "temperature" in head.calibrate and "probabilities" in computed:
            # The confidences so far are those without a temperature.
            raw = computed["probabilities"]
            tempered = (raw.log() / head.temperature.to(raw.device)).softmax(1)
            computed["confidence"] = computed["confidence"] * tempered.amax(1) / raw.amax(1)
        head.threshold.fill_(rejection_threshold(computed["confidence"], computed["known"]))
        computed |= at_threshold(computed, float(head.threshold))

    def compute(self, head: Head, scores: Metric) -> dict[str, Tensor]:
        """The figures of the known images, and of what is told apart at the head's threshold."""
        if not isinstance(scores, _Both):
            return super().compute(head, scores)
        known, every = scores.known.compute(), scores.all.compute()
        computed = known | every | {"loss": (every if _counts_all(head) else known)["loss"]}
        return computed | at_threshold(computed, float(head.threshold))

    def figure_names(self, stage: Stage) -> tuple[str, ...]:
        """Those of the known images; but for training also those of telling them from unknown ones."""
        names = super().figure_names(stage)
        return names if stage == "train" else (*names, *RANKED, *AT_THRESHOLD)

    def figures(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """Those of the known images, and those of telling them from unknown ones."""
        more = {name: computed[name].item() for name in (*RANKED, *AT_THRESHOLD) if name in computed}
        return super().figures(computed) | more

    def intervals(self, computed: dict[str, Tensor]) -> dict[str, Interval]:
        """Of the figures of the known images, and of how well they are told from unknown ones."""
        found, rows = super().intervals(computed), (computed["confidence"], computed["known"])
        return found if len(rows[0]) > MOST_IMAGES else found | row_intervals({"unknown_auroc": drawn_auroc}, *rows)

    def tensors(self, head: Head, output: HeadOutput) -> dict[str, Tensor]:
        """``probabilities`` ``(B, C)``, and the ``confidence`` ``(B,)`` that the threshold is for."""
        return super().tensors(head, output) | {"confidence": self.confidence(head, output)}

    def per_image(self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None) -> PerImage:
        """Truth and decision, ``unknown`` among them; probability, confidence, how far that is beyond the threshold.

        The worst are those whose decision is wrong and whose confidence lies farthest from the threshold.
        """
        found = super().per_image(scores, head, output, target)
        assert target is not None
        confidence = self.confidence(head, output).double()
        beyond = confidence - head.threshold.double()
        guess = log_probabilities(head, output.logits).max(1).indices.where(beyond >= 0, -1)
        truth = target.where(target < self.target.num_classes, -1)
        columns = {
            "truth": [text or UNKNOWN for text in self.texts(truth)],
            "prediction": [text or UNKNOWN for text in self.texts(guess)],
            "probability": found.columns["probability"],
            "confidence": confidence,
            "correct": (guess == truth).double(),
        }
        return PerImage(columns, beyond.abs().where(guess != truth, -beyond.abs()))

    def prediction(self, head: Head, output: HeadOutput, place: Place) -> Prediction:
        """The probability of each class, and the most probable one or ``unknown``; its confidence is the score."""
        found = super().prediction(head, output, place)
        hidden = None if output.hidden is None else output.hidden.unsqueeze(0)
        confidence = float(self.confidence(head, type(output)(output.logits.unsqueeze(0), hidden)))
        threshold = float(head.threshold)
        label = found.label if confidence >= threshold else UNKNOWN
        return replace(found, label=label, score=confidence, threshold=threshold)

    def writer(self, folder: Path, root: Path | None, output: Output = PLAIN) -> OpenSetWriter:
        """A table of classes or ``unknown``, with the confidence, the threshold and the probabilities."""
        return OpenSetWriter(folder, self.target.class_names, output)

    def draw(self, scored: Scored) -> list[Picture]:
        """The confusion matrix with what is unknown, and a sheet of images with what was predicted."""
        from lightning_vision.reports.open_set import draw

        return draw(scored)


def _counts_all(head: Head) -> bool:
    """Whether the mean of the head's loss is over unknown images too."""
    return head.loss is not None and head.loss.counts_unknown


class _Both(Metric):
    """The counters of the known images, and of all."""

    full_state_update = False

    def __init__(self, known: EpochScores, every: OpenSetScores) -> None:
        super().__init__()
        self.known = known
        self.all = every

    def update(self) -> None:
        """Each is updated by itself."""

    def compute(self) -> dict[str, Tensor]:
        """Each is computed by itself."""
        return {}

    def reset(self) -> None:
        """Start both anew."""
        super().reset()
        self.known.reset()
        self.all.reset()
