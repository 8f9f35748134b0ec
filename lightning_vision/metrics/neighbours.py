"""How well the classes of a split lie together in the space of the embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_vision.metrics.base import Scores

# Rows whose similarities with all others are held at once: 200 MB for 50,000 rows.
BLOCK = 1024


class NeighbourAccuracy(Scores):
    """Accuracy of the k nearest neighbours, each row classified by all others of the split (leave-one-out).

    Args:
        k: Neighbours that vote.
        max_rows: Rows that a process stores. Beyond, every second row is let go of and every second one taken from
            then on, again and again: an even sample of the pass.
    """

    vectors: list[Tensor]
    truth: list[Tensor]

    def __init__(self, k: int = 5, max_rows: int = 50_000) -> None:
        super().__init__()
        self.k = k
        self.max_rows = max_rows
        self._seen, self._stride = 0, 1
        # Flat, because a process without any row does not know how long an embedding is.
        self.add_rows("vectors")
        self.add_rows("truth", dtype=torch.int64)

    def update(self, vectors: Tensor, target: Tensor, loss: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            vectors: ``(B, D)`` embeddings.
            target: ``(B,)`` class ids.
            loss: Mean loss of the batch.
        """
        self.add_loss(loss, len(target))
        taken = slice(-self._seen % self._stride, None, self._stride)
        self._seen += len(target)
        self.vectors.append(normalize(vectors.detach().float(), dim=1)[taken].flatten())
        self.truth.append(target.long()[taken])
        while -(-self._seen // self._stride) > self.max_rows:
            truth = self.rows("truth")
            self.vectors = [self.rows("vectors").view(len(truth), -1)[::2].flatten()]
            self.truth = [truth[::2]]
            self._stride *= 2

    def compute(self) -> dict[str, Tensor]:
        """Return ``loss`` and ``neighbour_accuracy``; NaN with fewer than two rows."""
        truth = self.rows("truth")
        vectors = self.rows("vectors").view(len(truth), -1) if len(truth) else torch.empty(0, 0)
        return {"loss": self.mean_loss(), "neighbour_accuracy": neighbour_accuracy(vectors, truth, self.k)}

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        self._seen, self._stride = 0, 1


def neighbour_accuracy(vectors: Tensor, target: Tensor, k: int = 5) -> Tensor:
    """Share of rows whose class is that of their nearest neighbours, themselves left out.

    The ``k`` rows with the largest cosine similarity vote with the weight ``(1 + similarity) / 2``, so that opposite
    vectors have none; of classes with equal votes the one with the nearest neighbour wins.

    Args:
        vectors: ``(N, D)`` of length one.
        target: ``(N,)`` class ids.
        k: Neighbours that vote; all others where there are fewer.

    Returns:
        A float64 scalar; NaN with fewer than two rows.
    """
    hits = torch.zeros((), dtype=torch.float64, device=target.device)
    k = min(k, len(target) - 1)
    if k < 1:
        return hits / 0
    for start in range(0, len(target), BLOCK):
        similarity = vectors[start : start + BLOCK] @ vectors.T
        rows = torch.arange(len(similarity), device=target.device)
        similarity[rows, start + rows] = -torch.inf
        nearest, which = similarity.topk(k, dim=1)
        classes = target[which]
        # Votes for the class of each neighbour; there are far fewer neighbours than there may be classes.
        votes = ((classes[:, :, None] == classes[:, None]) * (1 + nearest[:, None]) / 2).sum(2)
        winner = classes.gather(1, votes.max(1, keepdim=True).indices).squeeze(1)
        hits += (winner == target[start : start + BLOCK]).sum()
    return hits / len(target)
