"""A vector an image, to compare images by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_vision.inference.embedding_writer import EmbeddingWriter
from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.inference.prediction import Place, Prediction
from lightning_vision.metrics.base import Scores
from lightning_vision.metrics.neighbours import NeighbourAccuracy
from lightning_vision.tasks.base import PerImage, Stage, Task, mean_vectors
from lightning_vision.types import TargetKind

if TYPE_CHECKING:
    from lightning_vision.head import Head, HeadOutput
    from lightning_vision.reports.scored import Picture, Scored


class MeanLoss(Scores):
    """The mean loss of images without labels."""

    def update(self, count: int, loss: Tensor | None = None) -> None:
        """Add the mean loss of ``count`` samples."""
        self.add_loss(loss, torch.tensor(count))

    def compute(self) -> dict[str, Tensor]:
        """Return ``loss``."""
        return {"loss": self.mean_loss()}


class Embedding(Task):
    """Vectors ``(B, D)``, with class ids ``(B,)`` or without.

    Figure, where there are labels: ``knn_accuracy``, the share of images whose class is that of their five nearest
    neighbours in the same split. As in SimCLR it is taken of the encoder's embedding and not of the projection that the
    loss compares. The loss of a split depends on the batch size: each image is told from those of its batch.
    """

    name: ClassVar[str] = "embedding"
    output: ClassVar[str] = "embedding"
    target_kind: ClassVar[TargetKind] = "label"
    needs_target: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    covers_classes: ClassVar[bool] = False
    train_figures: ClassVar[bool] = False
    default_loss: ClassVar[str] = "nt_xent_loss"
    default_decoder: ClassVar[str] = "projector"
    monitor: ClassVar[str] = "knn_accuracy"
    shown: ClassVar[tuple[str, ...]] = ("knn_accuracy",)
    saves: ClassVar[tuple[str, ...]] = ("embeddings",)

    def scores(self, stage: Stage) -> Metric:
        """A counter that keeps the embeddings of a split with their labels, if there are any."""
        return NeighbourAccuracy() if self.target.class_names else MeanLoss()

    def update(
        self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None, loss: Tensor | None = None
    ) -> None:
        """Add the encoder's embeddings of a batch; images without a class count for the loss alone."""
        vectors = _embeddings(output)
        if isinstance(scores, MeanLoss):
            scores.update(len(vectors), loss)
            return
        assert target is not None
        if self.target.ignore_index is not None:
            known = target != self.target.ignore_index
            vectors, target = vectors[known], target[known]
        scores.update(vectors, target, loss)

    def figure_names(self, stage: Stage) -> tuple[str, ...]:
        """The accuracy of the nearest neighbours, if there are labels."""
        return ("knn_accuracy",) if self.target.class_names else ()

    def figures(self, computed: dict[str, Tensor]) -> dict[str, float]:
        """The accuracy of the nearest neighbours, if there are labels."""
        return {"knn_accuracy": computed["neighbour_accuracy"].item()} if self.target.class_names else {}

    def per_class(self, computed: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """Nothing."""
        return {}

    def averaged(self, head: Head, views: Sequence[HeadOutput]) -> HeadOutput:
        """The mean direction of each image's vectors, of the embedding and of the projection."""
        logits = mean_vectors([view.logits for view in views])
        assert logits is not None
        return views[0]._replace(logits=logits, hidden=mean_vectors([view.hidden for view in views]))

    def tensors(self, head: Head, output: HeadOutput) -> dict[str, Tensor]:
        """``embedding`` ``(B, D)``: the encoder's, or the projection where the decoder says so."""
        projected = getattr(head.decoder, "predicts", "embedding") == "projection"
        return {"embedding": output.logits if projected else _embeddings(output)}

    def per_image(self, scores: Metric, head: Head, output: HeadOutput, target: Tensor | None) -> PerImage:
        """The truth, where there are labels; which images are alike is only known when all of them were seen."""
        vectors = _embeddings(output)
        labelled = target is not None and self.target.class_names
        return PerImage(
            {"truth": self.texts(target)} if labelled and target is not None else {},
            torch.full((len(vectors),), torch.nan, device=vectors.device),
        )

    def prediction(self, head: Head, output: HeadOutput, place: Place) -> Prediction:
        """The encoder's embedding, or the projection where the decoder says so."""
        vector = self.tensors(head, output)["embedding"]
        return Prediction(place.path, embedding=vector.float().cpu().numpy())

    def writer(self, folder: Path, root: Path | None, output: Output = PLAIN) -> EmbeddingWriter:
        """An array of all vectors, and a table of their images."""
        return EmbeddingWriter(folder, output)

    def draw(self, scored: Scored) -> list[Picture]:
        """A map of the embeddings, and the nearest neighbours of some images."""
        from lightning_vision.reports.embeddings import draw

        return draw(scored)


def _embeddings(output: HeadOutput) -> Tensor:
    """The encoder's embeddings; of a decoder that does not tell them, its own vectors."""
    return output.logits if output.hidden is None else output.hidden
